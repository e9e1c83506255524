"""VideoMaskFormer, clip by clip."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from detectron2.modeling import build_model
from pycocotools import mask as coco_mask
from torch import Tensor

from ddep.errors import UserError
from ddep.modeling.meta_arch import VideoMaskFormer
from ddep.modeling.meta_arch.video_mask_former import ClipLogits
from tests.modeling.meta_arch.small_mask_former import image_of_size, tiny_config

SIZE, OUTPUT = (40, 56), (50, 70)


def model(**clip: Any) -> VideoMaskFormer:
    cfg = tiny_config(thing_classes=["square", "disc", "star"])
    cfg.MODEL.META_ARCHITECTURE = "VideoMaskFormer"
    cfg.MODEL.MASK_FORMER.TRANSFORMER_DECODER_NAME = "VideoMultiScaleMaskedTransformerDecoder"
    for key, value in clip.items():
        cfg.TEST.CLIP[key] = value
    torch.manual_seed(0)
    return build_model(cfg).eval()


def video(length: int) -> dict[str, Any]:
    frames = [image_of_size(*SIZE, seed) for seed in range(length)]
    return {"image": frames, "height": OUTPUT[0], "width": OUTPUT[1]}


@torch.no_grad()
def test_one_clip_gives_what_the_whole_video_gives() -> None:
    """With thresholds that leave nothing out; tracks of empty masks are left out."""
    inputs = video(3)
    [expected] = model()([inputs])
    everything = {"SCORE_THRESHOLD": 0.0, "NEW_THRESHOLD": 0.0}
    [found] = model(FRAMES=3, **everything)([inputs])
    seen = [n for n, masks in enumerate(expected["pred_masks"]) if coco_mask.area(masks).any()]
    assert len(seen) >= 6
    assert found["image_size"] == expected["image_size"] == OUTPUT
    for key in ("pred_scores", "pred_labels", "pred_masks"):
        assert found[key] == [expected[key][number] for number in seen]


@torch.no_grad()
def test_frames_come_in_order_whatever_the_clips(monkeypatch: pytest.MonkeyPatch) -> None:
    network = model(FRAMES=3, STRIDE=2, SCORE_THRESHOLD=0.0, NEW_THRESHOLD=0.0)
    clips = []

    def predict_clip(frames: list[Tensor], output_size: tuple[int, int]) -> Any:
        clips.append(len(frames))
        return VideoMaskFormer.predict_clip(network, frames, output_size)

    monkeypatch.setattr(network, "predict_clip", predict_clip)
    for length in (1, 2, 6):
        clips.clear()
        found = list(network.track(video(length)["image"], OUTPUT))
        assert clips == {1: [1], 2: [2], 6: [3, 3, 3]}[length]
        assert [frame.frame for frame in found] == list(range(length))
        for frame in found:
            number = len(frame.track_ids)
            assert frame.masks.shape == (number, *OUTPUT) and frame.masks.dtype == torch.bool
            assert frame.class_probabilities.shape == (number, 3)
    [results] = network([video(6)])
    assert len(results["pred_masks"]) > 3
    assert all(len(masks) == 6 for masks in results["pred_masks"])


def test_frames_are_read_when_they_are_due_and_forgotten() -> None:
    network = model(FRAMES=4, STRIDE=2, SCORE_THRESHOLD=0.0, NEW_THRESHOLD=0.0)
    alive: weakref.WeakSet[Tensor] = weakref.WeakSet()
    read = 0

    def frames() -> Iterator[Tensor]:
        nonlocal read
        for seed in range(12):
            read += 1
            image = image_of_size(*SIZE, seed)
            alive.add(image)
            yield image

    most = []
    for found in network.track(frames(), OUTPUT):
        most.append(len(alive))
        assert read - found.frame <= 6
        assert not found.masks.requires_grad
    assert len(most) == 12 and max(most) <= 5


@torch.no_grad()
def test_a_model_that_finds_nothing_has_frames_without_tracks() -> None:
    network = model(FRAMES=2, SCORE_THRESHOLD=1.0)
    [found] = network([video(3)])
    assert found == {"image_size": OUTPUT, "pred_scores": [], "pred_labels": [], "pred_masks": []}
    frames = list(network.track(video(3)["image"], OUTPUT))
    assert [(frame.track_ids, frame.masks.shape) for frame in frames] == [([], (0, *OUTPUT))] * 3


@torch.no_grad()
def test_what_is_too_small_at_the_frames_size_is_not_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """One positive value of the network's masks may vanish between its neighbours."""
    network = model(FRAMES=1)

    def predict_clip(frames: list[Tensor], output_size: tuple[int, int]) -> ClipLogits:
        masks = torch.full((2, 1, 16, 16), -9.0)
        masks[0, 0, 8, 8] = 0.1
        masks[1, 0, 8, 8] = 9.0
        classes = torch.tensor([[9.0, 0, 0, 0], [0, 8.0, 0, 0]])
        return ClipLogits(classes, masks, torch.eye(2), (64, 64), SIZE, OUTPUT)

    monkeypatch.setattr(network, "predict_clip", predict_clip)
    [frame] = network.track(video(1)["image"], OUTPUT)
    assert frame.track_ids == [2] and frame.masks.any()
    assert frame.class_probabilities.argmax(1).tolist() == [1]


def test_a_video_without_frames_is_an_error() -> None:
    with pytest.raises(UserError, match="no frames"):
        model(FRAMES=2)([{"image": [], "file_name": "a"}])
