"""VideoMaskFormer beside MaskFormer, and what it returns."""

from __future__ import annotations

from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from detectron2.modeling import build_model
from pycocotools import mask as coco_mask
from torch import Tensor, nn
from torch.nn import functional as F

from ddep.errors import UserError
from ddep.modeling.meta_arch import MaskFormer, VideoMaskFormer
from tests.huggingface_map import randomise
from tests.modeling.meta_arch.batches import same_points
from tests.modeling.meta_arch.small_mask_former import (
    CLASSES,
    annotated_clip,
    image_of_size,
    tiny_config,
    tiny_video_config,
)
from tests.modeling.transformer_decoder.test_video_mask2former_transformer_decoder import (
    without_time,
)


def video_model() -> VideoMaskFormer:
    """With masks that are neither empty nor full."""
    model = build_model(tiny_video_config())
    randomise(model.sem_seg_head.predictor)
    return model.eval()


def image_model(of_clips: VideoMaskFormer) -> MaskFormer:
    """With the same weights."""
    cfg = tiny_config()
    cfg.MODEL.MASK_FORMER.TEST.INSTANCE_ON = True
    model = build_model(cfg)
    model.load_state_dict(of_clips.state_dict())
    return model.eval()


def frames(number: int, height: int = 50, width: int = 70) -> list[Tensor]:
    return [image_of_size(height, width, seed) for seed in range(number)]


@torch.no_grad()
def test_a_clip_of_one_frame_is_an_image_but_for_its_time() -> None:
    model = video_model()
    with without_time():
        clip = model.predict_clip(frames(1))
    (image,) = image_model(model).predict_logits([{"image": frames(1)[0]}])
    assert torch.equal(clip.mask_cls, image.mask_cls)
    assert torch.equal(clip.mask_pred[:, 0], image.mask_pred)
    sizes = (clip.padded_size, clip.image_size, clip.output_size)
    assert sizes == (image.padded_size, image.image_size, image.output_size)
    assert sizes == ((64, 96), (50, 70), (50, 70))
    assert not torch.equal(model.predict_clip(frames(1)).mask_cls, clip.mask_cls)


def test_losses_of_clips_of_one_frame_are_those_of_images() -> None:
    model = video_model().train()
    clips = [annotated_clip(1, 40, 50, [0, 2], 1), annotated_clip(1, 64, 50, [], 2)]
    images = [
        {**clip, "image": clip["image"][0], "instances": clip["instances"][0]} for clip in clips
    ]
    with same_points():
        with without_time():
            found = model(clips)
        expected = image_model(model).train()(images)
    assert found.keys() == expected.keys()
    for name, loss in found.items():
        torch.testing.assert_close(loss, expected[name], rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_order_of_frames_matters_only_through_time() -> None:
    model, order = video_model(), [2, 0, 1]
    shuffled = [frames(3)[index] for index in order]
    with without_time():
        first, second = model.predict_clip(frames(3)), model.predict_clip(shuffled)
    torch.testing.assert_close(second.mask_cls, first.mask_cls, rtol=0, atol=1e-4)
    torch.testing.assert_close(second.embeddings, first.embeddings, rtol=0, atol=1e-4)
    torch.testing.assert_close(second.mask_pred, first.mask_pred[:, order], rtol=0, atol=1e-4)
    with_time = model.predict_clip(frames(3)).mask_cls - model.predict_clip(shuffled).mask_cls
    assert with_time.abs().max() > 1e-3


def test_frames_of_a_training_clip_stay_with_their_masks() -> None:
    """The second clip's targets: what the criterion is given for each frame."""
    model = video_model().train()
    clips = [annotated_clip(2, 64, 96, [1], 1), annotated_clip(2, 40, 50, [0, 2], 2)]
    seen: dict[str, Any] = {}

    def criterion(outputs: dict[str, Any], targets: list[Any], normalisers: Any) -> dict[str, Any]:
        seen.update(outputs=outputs, targets=targets, normalisers=normalisers)
        return {}

    with mock.patch.object(model.criterion, "forward", criterion):
        model(clips)
    target = seen["targets"][1]
    assert target["labels"].tolist() == [0, 2]
    assert target["masks"].shape == (2, 2, 64, 96)
    for frame in range(2):
        expected = F.pad(clips[1]["instances"][frame].gt_masks, (0, 46, 0, 24))
        assert torch.equal(target["masks"][:, frame], expected)
    # An object counts once, however many frames it is in.
    assert seen["normalisers"]["masks"] == 3
    # Each clip's logits are those of the clip alone.
    with torch.no_grad():
        alone = model.eval().predict_clip(clips[0]["image"])
    torch.testing.assert_close(seen["outputs"]["pred_masks"][0], alone.mask_pred, rtol=0, atol=1e-4)
    torch.testing.assert_close(seen["outputs"]["pred_logits"][0], alone.mask_cls, rtol=0, atol=1e-4)


def test_every_parameter_has_a_gradient() -> None:
    model = video_model().train()
    sum(model([annotated_clip(2, 40, 50, [0], 1)]).values()).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


@torch.no_grad()
def test_results_of_a_video() -> None:
    """The ten most probable pairs, with masks that are positive at the size of the results."""
    model = video_model()
    model.max_detections = 10
    (video,) = model([{"image": frames(3), "height": 75, "width": 35, "file_name": "a.png"}])
    clip = model.predict_clip(frames(3))
    probabilities = clip.mask_cls.softmax(-1)[:, :CLASSES].double().numpy()
    pairs = np.dstack(np.unravel_index(np.argsort(-probabilities, axis=None), (6, CLASSES)))[0][:10]
    logits = F.interpolate(clip.mask_pred, size=(64, 96), mode="bilinear")[..., :50, :70]
    logits = F.interpolate(logits, size=(75, 35), mode="bilinear")

    assert video["image_size"] == (75, 35)
    assert video["pred_labels"] == pairs[:, 1].tolist()
    expected = [probabilities[query, label] for query, label in pairs]
    assert video["pred_scores"] == pytest.approx(expected, rel=1e-5)
    assert [len(masks) for masks in video["pred_masks"]] == [3] * 10
    for (query, _), masks in zip(pairs, video["pred_masks"], strict=True):
        assert isinstance(masks[0]["counts"], str)
        found = np.stack([coco_mask.decode(mask) for mask in masks])
        assert 0 < found.mean() < 1
        different = found != (logits[query] > 0).numpy()
        assert different.mean() < 1e-3  # rounding


def test_parameters_are_those_of_an_image_model() -> None:
    def shapes(model: nn.Module) -> dict[str, torch.Size]:
        return {name: value.shape for name, value in model.state_dict().items()}

    assert shapes(build_model(tiny_video_config())) == shapes(build_model(tiny_config()))


def test_frames_of_different_sizes() -> None:
    model = video_model()
    video = {"image": [*frames(2), image_of_size(50, 60, 1)], "file_name": "a.png"}
    with pytest.raises(
        UserError, match=r"a\.png: frame 2 .* size \(50, 60\), the first one \(50, 70\)"
    ):
        model([video])
    with pytest.raises(UserError, match=r"a\.png: no frames"):
        model([{"image": [], "file_name": "a.png"}])


def test_clips_of_different_length_in_a_batch() -> None:
    clips = [annotated_clip(2, 40, 50, [0], 1), annotated_clip(3, 40, 50, [0], 2)]
    with pytest.raises(ValueError, match=r"clip2\.png: 3 frames, but the batch's first clip has 2"):
        video_model().train()(clips)


def test_wrong_annotations() -> None:
    model = video_model().train()
    clip = annotated_clip(2, 40, 50, [0, CLASSES], 1)
    with pytest.raises(UserError, match=r"clip1\.png: classes 0 to 3, expected 0 to 2"):
        model([clip])
    del clip["instances"]
    with pytest.raises(UserError, match=r"clip1\.png: no `instances`"):
        model([clip])


def test_dense_losses_are_for_images() -> None:
    cfg = tiny_video_config()
    cfg.MODEL.DDEP.MASK_LOSS = "dense"
    with pytest.raises(UserError, match=r"MODEL\.DDEP\.MASK_LOSS is 'dense'.*VideoMaskFormer"):
        build_model(cfg)
