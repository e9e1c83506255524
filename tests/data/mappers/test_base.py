"""The parts that all segmentation mappers share."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from ddep.data.augmentation import LabelledImage
from ddep.data.image_reader import read_image
from ddep.data.mappers import build_mapper
from ddep.data.mappers.base import distinct, to_tensor

MAPS = arrays.arrays(
    st.sampled_from([np.int32, np.uint8, np.int64]),
    arrays.array_shapes(min_dims=2, max_dims=2, max_side=9),
    elements=st.integers(0, 5),
)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(MAPS)
def test_distinct_values(labels):
    for view in (labels, labels[::-1], labels.T):
        found = distinct(view)
        assert found.dtype == labels.dtype and np.array_equal(found, np.unique(labels))


@pytest.mark.parametrize("size", [(1, 1), (5, 7), (1, 300), (64, 48)])
def test_planes(size):
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    for pixels in (image, image[:, ::-1], image[::-1], image[..., ::-1], image[:, :, [2, 1, 0]]):
        before = pixels.copy()
        tensor = to_tensor(pixels)
        assert tensor.is_contiguous()
        assert np.array_equal(tensor.numpy(), before.transpose(2, 0, 1))
        tensor.zero_()
        assert np.array_equal(pixels, before)


@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize("order", ["RGB", "BGR"])
@pytest.mark.parametrize("area", [1.0, 0.5])
def test_images_and_labels_are_those_of_the_augmentations_on_arrays(
    config, tmp_path, depth, order, area
):
    """Although the first resizing is drawn and done before the image is an array."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (60, 80, 3), dtype=np.uint8)
    if depth == 16:
        pixels = rng.integers(0, 65536, (60, 80), dtype=np.uint16)
    Image.fromarray(pixels).save(tmp_path / "image.png")
    labels = rng.integers(0, 5, (60, 80), dtype=np.uint8)
    Image.fromarray(labels).save(tmp_path / "labels.png")
    record = {
        "file_name": str(tmp_path / "image.png"),
        "sem_seg_file_name": str(tmp_path / "labels.png"),
    }
    cfg = config(
        *("INPUT.FORMAT", order, "INPUT.MIN_SIZE_TRAIN", (30, 47, 60, 91)),
        *("INPUT.CROP.ENABLED", True, "INPUT.CROP.TYPE", "absolute", "INPUT.CROP.SIZE", (40, 40)),
        *("INPUT.CROP.SINGLE_CATEGORY_MAX_AREA", area, "INPUT.COLOR_AUG_SSD", True),
        *("INPUT.SIZE_DIVISIBILITY", 48, "MODEL.SEM_SEG_HEAD.NUM_CLASSES", 5),
    )
    mapper = build_mapper(cfg, is_train=True)
    for seed in range(8):
        np.random.seed(seed)
        random.seed(seed)
        sample = mapper(record)
        np.random.seed(seed)
        random.seed(seed)
        image = read_image(record["file_name"], order)
        expected = LabelledImage(image, labels.astype(np.int32), mapper.ignore_label)
        mapper.augmentations(expected)
        assert np.array_equal(sample["image"].numpy().transpose(1, 2, 0), expected.image)
        assert np.array_equal(sample["sem_seg"].numpy(), expected.sem_seg)
