"""Views of target images, against warping the image by their affine maps."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.config import CfgNode
from PIL import Image
from torch import Tensor

from ddep.adaptation.warping import invert, warp
from ddep.data.mappers import build_target_mapper
from ddep.data.record import Record
from ddep.data.seeding import seeded
from ddep.errors import UserError

Config = Callable[..., CfgNode]

OFF = ("JITTER_PROBABILITY", "GRAY_PROBABILITY", "BLUR_PROBABILITY")
NO_CHANGES = [item for key in OFF for item in (f"MODEL.ADAPTATION.STRONG.{key}", 0.0)]
KEYS = ("INPUT.MIN_SIZE_TRAIN", (40,), "INPUT.FORMAT", "RGB", "MODEL.ADAPTATION.SAC.VIEWS", 5)


@pytest.fixture
def record(tmp_path: Path) -> Record:
    """A smooth image of 40 x 56 pixels."""
    rows, columns = np.mgrid[0:40, 0:56]
    waves = [np.sin(rows / 7), np.cos(columns / 6), np.sin((rows + 2 * columns) / 9)]
    pixels = (127 + 120 * np.stack(waves, axis=2)).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "image.png")
    return {"file_name": str(tmp_path / "image.png")}


def _inside(to_frame: Tensor, size: tuple[int, int]) -> Tensor:
    """Where a view's sampling points are two pixels away from the crop's border."""
    rows, columns = size
    mask = torch.zeros(size, dtype=torch.bool)
    x, y = (abs(float(to_frame[axis, axis])) for axis in (0, 1))
    mask[int(2 / y) + 1 : -int(2 / y) - 1, int(2 / x) + 1 : -int(2 / x) - 1] = True
    return mask


@pytest.mark.parametrize("flip", ["horizontal", "vertical", "none"])
def test_affine_maps_are_those_of_the_views(config: Config, record: Record, flip: str) -> None:
    mapper = build_target_mapper(
        config(*KEYS, *NO_CHANGES, "INPUT.RANDOM_FLIP", flip), "target_crops"
    )
    signs, scales = set(), []
    for position in range(8):
        with seeded(1, position):
            sample = mapper(record)
        views, to_frame = sample["views"], sample["to_frame"]
        assert len(views) == 5
        assert torch.equal(views[0], sample["image"])
        assert torch.equal(to_frame[0], torch.tensor([[1.0, 0, 0], [0, 1, 0]]))
        for view, affine in zip(views[1:], to_frame[1:], strict=True):
            assert view.shape == sample["image"].shape
            expected = warp(sample["image"][None].float(), affine[None])[0]
            inside = _inside(affine, view.shape[-2:])
            difference = (view.float() - expected).abs()[:, inside]
            assert difference.mean() < 0.6
            assert difference.max() <= 2
            # What lies outside of the crop is not in the view.
            corners = torch.tensor([[-1.0, -1.0, 1.0], [1.0, 1.0, 1.0]]) @ affine.T
            assert corners.abs().max() <= 1 + 1e-6
            signs.add((float(affine[0, 0].sign()), float(affine[1, 1].sign())))
            scales.append(float(affine[1, 1].abs()))
    flipped = {"horizontal": {(-1.0, 1.0)}, "vertical": {(1.0, -1.0)}, "none": set()}[flip]
    assert signs == {(1.0, 1.0)} | flipped
    assert 0.47 < min(scales) < 0.6
    assert 0.85 < max(scales) <= 1


def test_warping_back_restores_the_image(config: Config, record: Record) -> None:
    mapper = build_target_mapper(config(*KEYS, *NO_CHANGES), "target_crops")
    sample = mapper(record)
    views, to_frame = torch.stack(sample["views"]).float(), sample["to_frame"]
    back = warp(views, invert(to_frame))
    ones = warp(torch.ones_like(views), invert(to_frame)) == 1
    for image, inside in zip(back[1:], ones[1:], strict=True):
        assert inside.float().mean() > 0.15
        difference = (image - sample["image"]).abs()[inside]
        assert difference.mean() < 1.5


def test_each_view_has_a_strong_one(config: Config, record: Record) -> None:
    unchanged = build_target_mapper(config(*KEYS, *NO_CHANGES), "target_crops")(record)
    for view, strong in zip(unchanged["views"], unchanged["strong"], strict=True):
        assert torch.equal(view, strong)
    mapper = build_target_mapper(
        config(*KEYS, *NO_CHANGES, f"{NO_CHANGES[2]}", 1.0), "target_crops"
    )
    sample = mapper(record)
    for view, strong in zip(sample["views"], sample["strong"], strict=True):
        assert torch.equal(strong[0], strong[1])
        grey = (view.float() * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(0)
        assert (strong[0] - grey).abs().max() <= 1.5


def test_samples_are_reproducible(config: Config, record: Record) -> None:
    mapper = build_target_mapper(config(*KEYS), "target_crops")
    first, again, other = [], [], []
    for samples, position in ((first, 3), (again, 3), (other, 4)):
        with seeded(1, position):
            sample = mapper(record)
        samples.extend([*sample["views"], *sample["strong"], sample["to_frame"]])
    assert all(map(torch.equal, first, again))
    assert not any(map(torch.equal, first[1:5], other[1:5]))


def test_tiny_images_have_views(config: Config, tmp_path: Path) -> None:
    Image.new("RGB", (3, 1), (200, 0, 0)).save(tmp_path / "tiny.png")
    cfg = config(*KEYS, "INPUT.MIN_SIZE_TRAIN", (1,))
    sample = build_target_mapper(cfg, "target_crops")({"file_name": str(tmp_path / "tiny.png")})
    assert {view.shape for view in sample["views"]} == {(3, 1, 3)}


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("VIEWS", 0, "at least 1"),
        ("ZOOM", [0.5, 1.5], "two numbers above 0 and up to 1"),
        ("ZOOM", [0.9, 0.5], "the lower one first"),
    ],
)
def test_impossible_values(config: Config, key: str, value: object, expected: str) -> None:
    with pytest.raises(UserError, match=rf"SAC\.{key} is .*{expected}"):
        build_target_mapper(config(*KEYS, f"MODEL.ADAPTATION.SAC.{key}", value), "target_crops")
