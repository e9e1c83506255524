"""The jobs and statistics of the benchmark of the mappers; ``test_data.py`` runs the tool."""

from __future__ import annotations

import os
from collections import Counter

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

import data_measurement
from data_jobs import MEASURED, NUM_CLASSES, TorchvisionMapper, mapper_config, random_size_crop
from data_measurement import OURS, THEIRS, Case, Result, measure
from ddep.data.mappers import build_mapper
from ddep.errors import UserError
from photographs import find_photographs, make_photographs


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    return make_photographs(tmp_path_factory.mktemp("photographs"), 200, 150, 2)


def test_photographs_are_labelled_and_of_natural_size(tmp_path):
    [record, other] = make_photographs(tmp_path, 500, 375, 2)
    assert Image.open(record["file_name"]).size == (500, 375)
    kilobytes = (tmp_path / "500x375_0.jpg").stat().st_size / 1e3
    assert 60 < kilobytes < 120
    segments = np.asarray(Image.open(record["pan_seg_file_name"]))[..., 0]
    classes = np.asarray(Image.open(record["sem_seg_file_name"]))
    assert classes.max() < NUM_CLASSES
    assert {s["id"] for s in record["segments_info"]} == set(np.unique(segments))
    for segment in record["segments_info"]:
        assert (classes[segments == segment["id"]] == segment["category_id"]).all()
    assert len(record["annotations"]) == 12
    first = record["annotations"][0]["segmentation"][0]
    assert other["annotations"][0]["segmentation"][0] != first


def test_photographs_from_a_folder(tmp_path):
    for name in ("b.jpg", "a.png", "c.jpg"):
        Image.new("RGB", (4, 4)).save(tmp_path / name)
    found = find_photographs(tmp_path, 2)
    assert [record["file_name"] for record in found] == [
        str(tmp_path / "a.png"),
        str(tmp_path / "b.jpg"),
    ]
    with pytest.raises(UserError, match="does not exist"):
        find_photographs(tmp_path / "none", 2)


@pytest.mark.parametrize("name", MEASURED)
@pytest.mark.parametrize("tensors", [False, True])
def test_both_sides_make_the_same(records, name, tensors):
    ours = build_mapper(mapper_config(name), is_train=True)(records[0])
    theirs = TorchvisionMapper(name, tensors)(records[0])
    assert type(theirs["image"]) is torch.Tensor
    assert theirs["image"].dtype == ours["image"].dtype
    if name != "detr_panoptic":  # there, sizes are random
        assert theirs["image"].shape == ours["image"].shape
    if name == "ddep_denoising":
        assert theirs["noise"].shape == ours["noise"].shape
        assert abs(theirs["noise"].var() - 1) < 0.05
        return
    size = theirs["image"].shape[1:]
    masks = theirs["masks"]
    assert masks.dtype == torch.bool == ours["instances"].gt_masks.dtype
    assert masks.shape[1:] == size and masks.flatten(1).any(1).all() and len(masks)
    assert theirs["classes"].dtype == torch.int64 == ours["instances"].gt_classes.dtype
    assert len(theirs["classes"]) == len(masks)
    assert theirs["classes"].max() < NUM_CLASSES
    if "labels" in theirs:
        [labels] = {"sem_seg", "pan_seg"} & set(ours) if "semantic" in name else ["pan_seg"]
        assert theirs["labels"].dtype == ours[labels].dtype == torch.int64
        assert theirs["labels"].shape == size


def test_denoising_is_the_same_up_to_noise(tmp_path):
    """Both normalise by ImageNet's mean and deviation, so a grey image becomes the same."""
    Image.new("RGB", (300, 260), (60, 120, 180)).save(tmp_path / "a.jpg", quality=95)
    record = {"file_name": str(tmp_path / "a.jpg")}
    images = []
    for mapper in (
        build_mapper(mapper_config("ddep_denoising"), is_train=True),
        TorchvisionMapper("ddep_denoising", tensors=False),
        TorchvisionMapper("ddep_denoising", tensors=True),
    ):
        sample = mapper(record)
        images.append(sample["image"] * (1 + 0.48**2) ** 0.5 - 0.48 * sample["noise"])
    torch.testing.assert_close(images[0], images[1], atol=1e-3, rtol=0)
    torch.testing.assert_close(images[0], images[2], atol=1e-3, rtol=0)


def test_crop_of_random_size():
    image = torch.arange(700 * 650).view(1, 700, 650)
    for _ in range(20):
        cropped, labels = random_size_crop(image, image + 1)
        assert torch.equal(cropped + 1, labels)
        assert all(384 <= side <= 600 for side in cropped.shape[1:])
    small, _ = random_size_crop(image[:, :30, :40], image[:, :30, :40])
    assert torch.equal(small, image[:, :30, :40])


def test_ratios_are_to_the_faster_of_the_others_round_by_round():
    seconds = {
        OURS: [1.0, 2.0, 1.0, 1.0, 4.0],
        list(THEIRS)[0]: [9.0, 9.0, 9.0, 9.0, 9.0],
        list(THEIRS)[1]: [2.0, 2.0, 3.0, 4.0, 20.0],
    }
    result = Result(Case("ddep_denoising", "any", [], 0), 12, seconds)
    assert result.rate(OURS) == 12 and result.rate(list(THEIRS)[1]) == 4
    # 2, 1, 3, 4, 5
    assert result.ratios() == (1.5, 3, 4.5)


def test_contestants_take_turns_and_change_places(records, monkeypatch):
    order = []

    def contestant(name):
        return lambda record: order.append((name, torch.get_num_threads(), cv2.getNumThreads()))

    monkeypatch.setattr(data_measurement, "build_mapper", lambda cfg, is_train: contestant(OURS))
    monkeypatch.setattr(
        data_measurement, "TorchvisionMapper", lambda name, tensors: contestant(tensors)
    )
    before = torch.get_num_threads(), cv2.getNumThreads()
    result = measure(Case("ddep_denoising", "any", records[:1], 0), seconds=0.0)
    assert (torch.get_num_threads(), cv2.getNumThreads()) == before
    assert {entry[1:] for entry in order} == {(1, 1)}
    names = [name for name, *_ in order]
    first = [OURS, False, True]
    assert names[:6] == first + first
    assert names[6:12] == [False, True, OURS, True, OURS, False]
    assert len(names) == 3 * 6
    assert all(len(times) == 5 for times in result.seconds.values())


@pytest.mark.slow
def test_each_worker_makes_as_many_images(records, monkeypatch, tmp_path):
    log = tmp_path / "process ids"

    def contestant(*_, **__):
        def make(record):
            with open(log, "a") as file:
                file.write(f"{os.getpid()}\n")

        return make

    monkeypatch.setattr(data_measurement, "BATCH", 3)
    monkeypatch.setattr(data_measurement, "BATCHES", 2)
    monkeypatch.setattr(data_measurement, "build_mapper", contestant)
    monkeypatch.setattr(data_measurement, "TorchvisionMapper", contestant)
    result = measure(Case("ddep_denoising", "any", records, 2), seconds=0.0)
    assert result.images == 6
    # Three contestants with two workers each, six rounds, six images.
    assert sorted(Counter(log.read_text().split()).values()) == [36] * 6
