"""Mixing weights and class-uniform sampling, against exact expectations."""

from __future__ import annotations

import itertools
import tracemalloc
from collections import Counter

import numpy as np
import pytest
import torch
from detectron2.data import samplers as detectron2_samplers
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy.stats import chisquare

from ddep.data.samplers import (
    GroupSampler,
    RepeatFactorTrainingSampler,
    TrainingSampler,
    TrainSampler,
    build_train_sampler,
    check_sampler_keys,
    group_by_class,
)
from ddep.errors import UserError

LENGTH = 20_000


def take(sampler: TrainSampler, count: int = LENGTH, seed: int = 3, start: int = 0) -> list[int]:
    return list(itertools.islice(sampler.indices(seed, start), count))


def fits(drawn: list[int], shares: list[float]) -> bool:
    """Whether the counts of 0, 1, ... are as expected, by a chi-square test."""
    counts = np.bincount(drawn, minlength=len(shares))
    assert len(counts) == len(shares)
    expected = len(drawn) * np.array(shares)
    assert (counts[expected == 0] == 0).all()
    return chisquare(counts[expected > 0], expected[expected > 0]).pvalue > 0.001


def panoptic(classes: list[set[int]]) -> list[dict]:
    """Records of images that show these classes."""
    return [
        {"file_name": f"{i}.jpg", "segments_info": [{"category_id": c} for c in found]}
        for i, found in enumerate(classes)
    ]


@pytest.fixture
def make(config):
    """Makes the sampler of sets of records, with KEY, VALUE, ... overrides."""

    def make(sets: list[list[dict]], *overrides):
        cfg = config(
            *("DATASETS.TRAIN", tuple("abcd"[: len(sets)])),
            *("MODEL.SEM_SEG_HEAD.NUM_CLASSES", 5),
            *("INPUT.DATASET_MAPPER_NAME", "mask_former_panoptic", *overrides),
        )
        return build_train_sampler(cfg, sets)

    return make


UNIFORM = ("DATALOADER.SAMPLER_TRAIN", "ClassUniformSampler")


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_sets_have_their_weights_whatever_their_sizes(make, seed: int) -> None:
    sets = [panoptic([{0}]) * size for size in (1000, 10, 3)]
    drawn = take(make(sets, "DATASETS.TRAIN_WEIGHTS", (1, 2, 0.5)), seed=seed)
    of_set = np.digitize(drawn, [1000, 1010]).tolist()
    assert fits(of_set, [2 / 7, 4 / 7, 1 / 7])
    # Every image of a set before any comes again.
    for start, size in ((0, 1000), (1000, 10), (1010, 3)):
        own = [i for i in drawn if start <= i < start + size]
        for first in range(0, len(own) - size, size):
            assert set(own[first : first + size]) == set(range(start, start + size))
    assert [i for i in drawn if 1000 <= i < 1010][:10] != list(range(1000, 1010))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_classes_are_uniform(make, seed: int) -> None:
    """An image's share is the sum over its classes of 1 / (classes x images that show the class).

    Class 3 is in one image of 40, class 2 in none; image 39 shows nothing.
    """
    classes = [{0} for _ in range(30)] + [{0, 1} for _ in range(8)] + [{0, 1, 3}, set()]
    drawn = take(make([panoptic(classes)], *UNIFORM), seed=seed)
    images = Counter(c for found in classes for c in found)
    shares = [sum(1 / 3 / images[c] for c in found) for found in classes]
    assert sum(shares) == pytest.approx(1)
    assert shares[38] > 1 / 3 and shares[39] == 0
    # Images of a class take turns, so counts vary less than with independent draws; sums suffice.
    groups = [0] * 30 + [1] * 8 + [2, 3]
    of_group = [groups[i] for i in drawn]
    assert fits(of_group, [sum(shares[:30]), sum(shares[30:38]), shares[38], 0])
    counts = np.bincount(drawn, minlength=40) / LENGTH
    np.testing.assert_allclose(counts[:30], shares[0], rtol=0.15)
    np.testing.assert_allclose(counts[30:38], shares[30], rtol=0.15)


def test_classes_are_uniform_within_weighted_sets(make) -> None:
    sets = [panoptic([{0}] * 6 + [{1}] * 2), panoptic([{0, 4}] * 3 + [{3}])]
    drawn = take(make(sets, *UNIFORM, "DATASETS.TRAIN_WEIGHTS", (3, 1)))
    kinds = [0] * 6 + [1] * 2 + [2] * 3 + [3]
    second = [1 / 4 * 2 / 3, 1 / 4 * 1 / 3]
    assert fits([kinds[i] for i in drawn], [3 / 8, 3 / 8, *second])


@pytest.fixture
def label_images(tmp_path):
    """Makes records of label images that show these classes."""

    def make(classes: list[list[int]]) -> list[dict]:
        records = []
        for found in classes:
            path = str(tmp_path / f"classes{'-'.join(map(str, found))}.png")
            Image.fromarray(np.array([found or [255]], dtype=np.uint8)).save(path)
            records.append({"file_name": f"{len(records)}.jpg", "sem_seg_file_name": path})
        return records

    return make


def test_a_share_of_the_images_is_drawn_by_class(make, label_images, tmp_path) -> None:
    sets = [label_images([[0], [0, 2], [], [0]]), label_images([[4], [4]])]
    overrides = ("INPUT.DATASET_MAPPER_NAME", "mask_former_semantic", "OUTPUT_DIR", str(tmp_path))
    overrides += ("DATALOADER.CLASS_UNIFORM.SHARE", 0.25, "DATASETS.TRAIN_WEIGHTS", (3, 1))
    sampler = make(sets, *overrides)
    drawn = take(sampler)
    pairs = [sampler.class_images[index - 6] for index in range(6, 12)]
    assert pairs == [(0, 0), (1, 0), (3, 0), (1, 2), (4, 4), (5, 4)]
    any_image = [*[0.75 * 0.75 / 4] * 4, *[0.25 * 0.75 / 2] * 2]
    by_class = [*[0.75 * 0.25 / 2 / 3] * 3, 0.75 * 0.25 / 2, *[0.25 * 0.25 / 2] * 2]
    assert fits(drawn, [*any_image, *by_class])
    assert take(sampler, 100, start=1030) == drawn[1030:1130]


def test_all_images_can_be_drawn_by_class(make, label_images, tmp_path) -> None:
    overrides = ("INPUT.DATASET_MAPPER_NAME", "mask_former_semantic", "OUTPUT_DIR", str(tmp_path))
    overrides += ("DATALOADER.CLASS_UNIFORM.SHARE", 1.0)
    drawn = take(make([label_images([[1], [3, 1]])], *overrides))
    assert fits(drawn, [0, 0, 1 / 4, 1 / 4, 1 / 2])


def test_without_weights_sets_are_joined(make) -> None:
    sets = [panoptic([{0}] * 6), panoptic([{0}, {1}])]
    drawn = take(make(sets, *UNIFORM))
    assert fits([min(max(i - 5, 0), 2) for i in drawn], [6 / 14, 1 / 14, 1 / 2])
    plain = make(sets)
    assert type(plain) is TrainingSampler
    assert take(plain, 16) == take(TrainingSampler(8), 16)


# A small one of each: passes and blocks of draws end within a few thousand indices.
SMALL = {
    "training": TrainingSampler(7),
    "repeat factor": RepeatFactorTrainingSampler(torch.tensor([1.0, 1.5, 2.25, 1.0, 3.9])),
    "groups": GroupSampler([range(5), range(5, 305), np.array([2, 9])], [1.0, 2.0, 0.1]),
}


@pytest.mark.parametrize("sampler", SMALL.values(), ids=SMALL)
def test_a_stream_can_start_at_every_position(sampler: TrainSampler) -> None:
    whole = take(sampler, 3000)
    starts = (*range(60), *range(1020, 1030), 2047, 2048, 2049, 2900)
    assert all(take(sampler, 100, start=start) == whole[start : start + 100] for start in starts)
    assert take(sampler, 3000) == whole
    assert take(sampler, 100, seed=4) != whole[:100]


@pytest.mark.parametrize("size", [1, 2, 1000])
@pytest.mark.parametrize("seed", [0, 5, 2**31 - 1])
def test_the_training_sampler_has_the_order_of_detectron2s(size: int, seed: int) -> None:
    expected = detectron2_samplers.TrainingSampler(size, seed=seed)
    assert take(TrainingSampler(size), 2500, seed) == list(itertools.islice(expected, 2500))


@pytest.mark.parametrize("seed", [0, 5])
def test_the_repeat_factor_sampler_has_the_order_of_detectron2s(make, seed: int) -> None:
    """Category 0 is in each image, category 1 in one of 20, which comes sqrt(5) times as often."""
    records = [
        {"file_name": "", "annotations": [{"category_id": c} for c in ({0, 1} if i == 7 else {0})]}
        for i in range(20)
    ]
    threshold = 0.25
    sampler = make(
        [records[:5], records[5:]],
        *("DATALOADER.SAMPLER_TRAIN", "RepeatFactorTrainingSampler"),
        *("DATALOADER.REPEAT_THRESHOLD", threshold),
    )
    kind = detectron2_samplers.RepeatFactorTrainingSampler
    factors = kind.repeat_factors_from_category_frequency(records, threshold)
    assert factors[7].item() == pytest.approx(5**0.5)
    drawn = take(sampler, 2000, seed)
    assert drawn == list(itertools.islice(kind(factors, seed=seed), 2000))
    assert drawn.count(7) / drawn.count(6) == pytest.approx(5**0.5, rel=0.1)


class Unlabelled:
    """Records that must not be made: sampling without labels needs none."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> dict:
        raise AssertionError(f"record {index} was made")


@pytest.mark.parametrize("weights", [(), (1, 3)])
@pytest.mark.parametrize("start", [0, 20_000_000])
def test_fourteen_million_images_take_few_bytes_each(make, weights, start: int) -> None:
    """detectron2's sampler takes about 50: Python numbers in a list, and an array of int64."""
    size = 14_000_000
    sampler = make(
        [Unlabelled(size - 10**6), Unlabelled(10**6)],
        *("DATASETS.TRAIN_WEIGHTS", weights, "INPUT.DATASET_MAPPER_NAME", "ddep_denoising"),
    )
    order_bytes = []

    def randperm(*args, **kwargs) -> torch.Tensor:
        order = drawing(*args, **kwargs)
        order_bytes.append(order.numel() * order.element_size())
        return order

    drawing = torch.randperm
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "randperm", randperm)
        tracemalloc.start()
        drawn = take(sampler, 1000, start=start)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert len(drawn) == 1000 and max(drawn) < size and len(set(drawn)) > 250
    # What torch allocates is not traced.
    assert max(order_bytes) <= 4 * size and peak < 1_000_000


@given(st.lists(st.sets(st.integers(0, 6)), max_size=20))
def test_grouping_by_class(classes: list[set[int]]) -> None:
    found = group_by_class([np.array(sorted(c), dtype=np.int64) for c in classes])
    expected = {
        c: [i for i, shown in enumerate(classes) if c in shown] for c in set().union(*classes)
    }
    assert {c: images.tolist() for c, images in found.items()} == expected


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("DATASETS.TRAIN_WEIGHTS", (1,)), "has 1 numbers and DATASETS.TRAIN has 2 data sets"),
        (("DATASETS.TRAIN_WEIGHTS", (1, 0)), r"TRAIN_WEIGHTS is \(1, 0\); expected positive"),
        (("DATASETS.TRAIN_WEIGHTS", (1, float("inf"))), "expected positive numbers"),
        (("DATASETS.TRAIN_WEIGHTS", (1, "a")), "expected positive numbers"),
        (
            (
                *("DATASETS.TRAIN_WEIGHTS", (1, 1)),
                *("DATALOADER.SAMPLER_TRAIN", "RepeatFactorTrainingSampler"),
            ),
            "TRAIN_WEIGHTS is given, but DATALOADER.SAMPLER_TRAIN is RepeatFactorTrainingSampler",
        ),
        (("DATALOADER.SAMPLER_TRAIN", "Best"), "'Best'; expected one of TrainingSampler, Repeat"),
        ((*UNIFORM, "INPUT.DATASET_MAPPER_NAME", "ddep_denoising"), "needs labels, but denoising"),
        (("DATALOADER.CLASS_UNIFORM.SHARE", 1.5), "SHARE is 1.5; expected a number from 0 to 1"),
        (("DATALOADER.CLASS_UNIFORM.TILE_SIZE", 0), "TILE_SIZE is 0; expected a whole number"),
        (
            ("DATALOADER.CLASS_UNIFORM.SHARE", 0.5),
            "SHARE is 0.5, but INPUT.DATASET_MAPPER_NAME is mask_former_panoptic, which reads no",
        ),
        (
            (*UNIFORM, "DATALOADER.CLASS_UNIFORM.SHARE", 0.5),
            "SHARE is 0.5, but DATALOADER.SAMPLER_TRAIN is ClassUniformSampler; expected Training",
        ),
    ],
)
def test_impossible_keys(make, config, overrides, message) -> None:
    with pytest.raises(UserError, match=message):
        make([panoptic([{0}])] * 2, *overrides)
    with pytest.raises(UserError, match=message):
        mapper = ("INPUT.DATASET_MAPPER_NAME", "mask_former_panoptic")
        check_sampler_keys(config("DATASETS.TRAIN", ("a", "b"), *mapper, *overrides))


def test_a_set_that_shows_no_class(make) -> None:
    sets = [panoptic([{0}]), panoptic([set()])]
    with pytest.raises(UserError, match="no image of data set b shows any class; take it out"):
        make(sets, *UNIFORM, "DATASETS.TRAIN_WEIGHTS", (1, 1))
    with pytest.raises(UserError, match="no training image shows any class"):
        make([panoptic([set(), set()])], *UNIFORM)


def test_group_weights_need_not_sum_to_one() -> None:
    drawn = take(GroupSampler([np.array([0]), np.array([1])], [30.0, 10.0]), seed=0)
    assert fits(drawn, [0.75, 0.25])
