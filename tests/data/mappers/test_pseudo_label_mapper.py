from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.config import CfgNode
from PIL import Image

from ddep.data.mappers import build_target_mapper
from ddep.data.mappers.target_pseudo_labels import PseudoLabelTargetMapper, place_label
from ddep.data.pseudo_labels import PseudoLabels, SoftLabel, label_path, write_label
from ddep.data.seeding import seeded
from ddep.errors import UserError

Config = Callable[..., CfgNode]

# Size of the image, of the model's input in the resolution at which the label was made, and of a
# label's pixel in that input's pixels. Not all are multiples of each other.
SIZE, INPUT, STRIDE = (96, 130), (70, 95), 4


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An image whose colours say where a pixel is, and a pseudo-label that says the same."""
    y, x = np.mgrid[: SIZE[0], : SIZE[1]] + 0.5
    colours = np.stack([x / SIZE[1], y / SIZE[0], 0 * x], axis=-1) / 2
    image = tmp_path / "images" / "a.png"
    image.parent.mkdir()
    Image.fromarray((255 * colours).round().astype(np.uint8)).save(image)
    shape = [-(-length // STRIDE) for length in INPUT]
    y, x = (np.mgrid[: shape[0], : shape[1]] + 0.5) * STRIDE
    p = np.stack([x / INPUT[1] / 2, y / INPUT[0] / 2])
    label = torch.from_numpy(np.concatenate([p, 1 - p.sum(0, keepdims=True)])).float()
    labels = tmp_path / "labels"
    covered = INPUT[0] / STRIDE, INPUT[1] / STRIDE
    path = label_path(labels, str(image.parent), str(image))
    write_label(path, SoftLabel(label, covered))
    PseudoLabels(str(image.parent), ["images:x"], 3, None, {}, []).write(labels)
    return tmp_path


def mapper_of(folder: Path, config: Config, *words: object) -> PseudoLabelTargetMapper:
    cfg = config(
        *("MODEL.ADAPTATION.PSEUDO_LABELS", str(folder / "labels")),
        *("MODEL.SEM_SEG_HEAD.COMMON_STRIDE", STRIDE, "INPUT.FORMAT", "RGB", *words),
    )
    return build_target_mapper(cfg, "target_pseudo_labels")


CROP = ("INPUT.CROP.ENABLED", True, "INPUT.CROP.TYPE", "absolute", "INPUT.CROP.SIZE", [50, 61])


@pytest.mark.parametrize(
    "keys",
    [
        ("INPUT.MIN_SIZE_TRAIN", (96, 67)),
        ("INPUT.MIN_SIZE_TRAIN", (67, 150), *CROP),
        ("INPUT.MIN_SIZE_TRAIN", (140,), "INPUT.RANDOM_FLIP", "vertical", *CROP),
    ],
    ids=["resized, mirrored", "cropped as well", "upside down"],
)
def test_pseudo_labels_stay_on_their_pixels(
    folder: Path, config: Config, keys: tuple[object, ...]
) -> None:
    mapper = mapper_of(folder, config, *keys)
    flips = set()
    for position in range(6):
        with seeded(0, position):
            sample = mapper({"file_name": str(folder / "images" / "a.png")})
        image, label = sample["image"], sample["pseudo_label"]
        height, width = image.shape[-2:]
        assert label.shape == (3, -(-height // STRIDE), -(-width // STRIDE))
        rows, columns = height // STRIDE, width // STRIDE
        cut = image[:2, : rows * STRIDE, : columns * STRIDE].double() / 255
        shown = cut.unflatten(2, (columns, STRIDE)).unflatten(1, (rows, STRIDE)).mean((2, 4))
        found = label[:2, :rows, :columns].double()
        # The label's outer half pixels are its border, repeated.
        inner = (shown > 0.04) & (shown < 0.46)
        difference = (found - shown)[inner]
        assert difference.abs().max() < 0.008  # 8 bits
        # Half a pixel of the label is 0.01, of the original image 0.0019 and 0.0026; crops of the
        # image are rounded to its pixels.
        allowed = 0.0035 if "INPUT.CROP.SIZE" in keys else 0.0008
        for channel in range(2):
            assert abs((found - shown)[channel][inner[channel]].mean()) < allowed
        axis = int("INPUT.RANDOM_FLIP" in keys)
        flips.add(bool(shown[axis, -1, -1] < shown[axis, 0, 0]))
    assert flips == {False, True}


def test_pixels_without_an_image_have_no_label() -> None:
    label = SoftLabel(torch.full((2, 4, 4), 0.5), (4, 4))
    corners = np.array([[-8.0, 4.0], [8.0, 20.0]])  # the original: x from -8 to 8, y from 4 to 20
    placed = place_label(label, corners, size=(22, 14), stride=4)
    expected = torch.zeros(2, 6, 4)
    expected[:, 1:5, :2] = 0.5
    torch.testing.assert_close(placed, expected)


def test_the_strong_view_has_a_hole_and_is_drawn_from_the_seed(
    folder: Path, config: Config
) -> None:
    mapper = mapper_of(folder, config)
    with seeded(0, 3):
        sample = mapper({"file_name": str(folder / "images" / "a.png")})
    [strong] = sample["strong"]
    top, left, bottom, right = sample["cut_out"]
    assert strong.shape == sample["image"].shape and sample["is_target"]
    assert (strong[:, top:bottom, left:right] == 128).all()
    with seeded(0, 3):
        again = mapper({"file_name": str(folder / "images" / "a.png")})
    assert torch.equal(again["strong"][0], strong)
    assert again["cut_out"] == sample["cut_out"] and again["seed"] == sample["seed"]


def test_an_image_without_pseudo_label_is_one_line(folder: Path, config: Config) -> None:
    mapper = mapper_of(folder, config)
    other = folder / "images" / "b.png"
    (folder / "images" / "a.png").rename(other)
    with pytest.raises(UserError, match=r"b\.png\.npz is missing; make the pseudo-labels again"):
        mapper({"file_name": str(other)})
