"""The decoder of clips, compared with Hugging Face's of images whose rows are all frames' rows."""

from __future__ import annotations

import math
from unittest import mock

import pytest
import torch
from torch import Tensor
from transformers.models.mask2former.modeling_mask2former import Mask2FormerTransformerModule

from ddep.modeling.transformer_decoder import (
    MultiScaleMaskedTransformerDecoder,
    VideoMultiScaleMaskedTransformerDecoder,
)
from tests.huggingface_map import predictor_state, randomise, small_config
from tests.modeling.mask_former_config import SMALL, mask_former_config

VIDEO = "ddep.modeling.transformer_decoder.video_mask2former_transformer_decoder"


def build(
    decoder_class: type[MultiScaleMaskedTransformerDecoder],
) -> MultiScaleMaskedTransformerDecoder:
    decoder = decoder_class(mask_former_config(SMALL), 64, mask_classification=True)
    randomise(decoder)
    return decoder.eval()


def random_frames(clips: int, frames: int) -> tuple[list[Tensor], Tensor]:
    generator = torch.Generator().manual_seed(3)
    scales = [
        torch.randn(clips * frames, 64, 3 * 2**i, 4 * 2**i, generator=generator) for i in range(3)
    ]
    return scales, torch.randn(clips * frames, 48, 24, 32, generator=generator)


def without_time() -> mock._patch:
    """Inside, the encoding of time is zero."""
    return mock.patch(f"{VIDEO}.sine_time_encoding", lambda t, c, _: torch.zeros(t, c, 1, 1))


def one_below_the_other(of_frames: Tensor, frames: int) -> Tensor:
    """(B * T, C, H, W) -> (B, C, T * H, W)."""
    clips = of_frames.split(frames)
    return torch.stack([torch.cat(list(clip), dim=1) for clip in clips])


def positions(frames: int, height: int, width: int, channels: int) -> Tensor:
    """(1, C, T * H, W): row and column in half of the channels each, plus time in all of them."""

    def wave(step: int, steps: int, k: int, features: int) -> float:
        angle = 2 * math.pi * step / (steps + 1e-6) * 10000 ** (-2 * (k // 2) / features)
        return math.cos(angle) if k % 2 else math.sin(angle)

    half = channels // 2
    rows = torch.tensor(
        [[wave(y + 1, height, k, half) for y in range(height)] for k in range(half)]
    )
    columns = torch.tensor(
        [[wave(x + 1, width, k, half) for x in range(width)] for k in range(half)]
    )
    image = torch.cat(
        [rows[:, :, None].expand(-1, -1, width), columns[:, None].expand(-1, height, -1)]
    )
    time = [
        torch.tensor([wave(t + 1, frames, k, channels) for k in range(channels)])
        for t in range(frames)
    ]
    return torch.cat([image + moment[:, None, None] for moment in time], dim=1)[None]


@pytest.mark.parametrize("frames", [1, 2, 5])
@torch.no_grad()
def test_matches_hugging_face(frames: int) -> None:
    """Attention sees a set of pixels, and halving a frame's size mixes no two frames' rows."""
    theirs = Mask2FormerTransformerModule(64, small_config()).eval()
    class_predictor = torch.nn.Linear(64, 6)
    randomise(theirs)
    randomise(class_predictor, seed=1)
    ours = build(VideoMultiScaleMaskedTransformerDecoder).train()
    ours.load_state_dict(predictor_state(theirs.state_dict(), class_predictor.state_dict()))
    theirs.position_embedder.forward = lambda shape, *_: positions(
        frames, shape[2] // frames, shape[3], 64
    ).expand(shape[0], -1, -1, -1)

    scales, mask_features = random_frames(2, frames)
    expected = theirs(
        [one_below_the_other(scale, frames) for scale in scales],
        one_below_the_other(mask_features, frames),
    )
    outputs = ours(scales, mask_features, num_frames=frames)
    assert outputs["pred_masks"].shape == (2, 10, frames, 24, 32)
    layers = [*outputs["aux_outputs"], outputs]
    assert len(layers) == 8
    for layer, hidden, masks in zip(
        layers, expected.intermediate_hidden_states, expected.masks_queries_logits, strict=True
    ):
        classes = class_predictor(hidden.transpose(0, 1))
        torch.testing.assert_close(layer["pred_logits"], classes, rtol=0, atol=1e-4)
        torch.testing.assert_close(layer["pred_masks"].flatten(2, 3), masks, rtol=0, atol=1e-4)
    torch.testing.assert_close(
        outputs["embeddings"],
        expected.intermediate_hidden_states[-1].transpose(0, 1),
        rtol=0,
        atol=1e-4,
    )


@torch.no_grad()
def test_order_of_frames_matters_only_through_time() -> None:
    decoder = build(VideoMultiScaleMaskedTransformerDecoder)
    scales, mask_features = random_frames(1, 4)
    order = torch.tensor([2, 0, 3, 1])
    shuffled = [scale[order] for scale in scales], mask_features[order]
    with without_time():
        first = decoder(scales, mask_features, num_frames=4)
        second = decoder(*shuffled, num_frames=4)
    for name in ("pred_logits", "embeddings"):
        torch.testing.assert_close(second[name], first[name], rtol=0, atol=1e-4)
    torch.testing.assert_close(
        second["pred_masks"], first["pred_masks"][:, :, order], rtol=0, atol=1e-4
    )
    in_time = decoder(scales, mask_features, num_frames=4)["pred_logits"]
    shuffled_in_time = decoder(*shuffled, num_frames=4)["pred_logits"]
    assert (in_time - shuffled_in_time).abs().max() > 1e-2


@torch.no_grad()
def test_one_frame_is_an_image() -> None:
    of_images = build(MultiScaleMaskedTransformerDecoder)
    of_clips = build(VideoMultiScaleMaskedTransformerDecoder)
    of_clips.load_state_dict(of_images.state_dict())
    inputs = random_frames(2, 1)
    expected = of_images(*inputs)
    with without_time():
        found = of_clips(*inputs, num_frames=1)
    assert torch.equal(found["pred_logits"], expected["pred_logits"])
    assert torch.equal(found["pred_masks"][:, :, 0], expected["pred_masks"])
    # The encoding of time, a constant, makes a difference.
    assert not torch.allclose(of_clips(*inputs, num_frames=1)["pred_logits"], found["pred_logits"])


@torch.no_grad()
def test_a_query_attends_everywhere_only_if_its_mask_is_empty_in_the_whole_clip() -> None:
    """Masks are empty in the first frame and full in the second: the first is not looked at."""
    decoder = build(VideoMultiScaleMaskedTransformerDecoder)
    for layer in decoder.mask_embed.layers:
        layer.weight.zero_()
        layer.bias.fill_(1.0)
    scales, mask_features = random_frames(1, 2)
    mask_features[0], mask_features[1] = -1.0, 1.0
    first = decoder(scales, mask_features, num_frames=2)["pred_logits"]
    changed = [scale.clone() for scale in scales]
    for scale in changed:
        scale[0] += 1.0
    assert torch.equal(decoder(changed, mask_features, num_frames=2)["pred_logits"], first)
    mask_features[1] = -1.0
    first = decoder(scales, mask_features, num_frames=2)["pred_logits"]
    assert not torch.allclose(decoder(changed, mask_features, num_frames=2)["pred_logits"], first)
