"""Mixing weights and class-uniform sampling, against exact expectations."""

from __future__ import annotations

import itertools
import pickle
from collections import Counter

import numpy as np
import pytest
from detectron2.data.samplers import TrainingSampler
from detectron2.utils import comm
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from ddep.data.samplers import (
    GroupSampler,
    build_train_sampler,
    check_sampler_keys,
    group_by_class,
)
from ddep.errors import UserError

LENGTH = 20_000


def take(sampler, count: int = LENGTH) -> list[int]:
    return list(itertools.islice(sampler, count))


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
            *("DATASETS.TRAIN", tuple("abcd"[: len(sets)]), "SEED", 3),
            *("MODEL.SEM_SEG_HEAD.NUM_CLASSES", 5),
            *("INPUT.DATASET_MAPPER_NAME", "mask_former_panoptic", *overrides),
        )
        return build_train_sampler(cfg, sets)

    return make


UNIFORM = ("DATALOADER.SAMPLER_TRAIN", "ClassUniformSampler")


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_sets_have_their_weights_whatever_their_sizes(make, seed: int) -> None:
    sets = [panoptic([{0}]) * size for size in (1000, 10, 3)]
    drawn = take(make(sets, "DATASETS.TRAIN_WEIGHTS", (1, 2, 0.5), "SEED", seed))
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
    drawn = take(make([panoptic(classes)], *UNIFORM, "SEED", seed))
    images = Counter(c for found in classes for c in found)
    shares = [sum(1 / 3 / images[c] for c in found) for found in classes]
    assert sum(shares) == pytest.approx(1)
    assert shares[38] > 1 / 3 and shares[39] == 0
    # Images of a class take turns, so counts vary less than independent draws; sums suffice.
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


def test_without_weights_sets_are_joined(make) -> None:
    sets = [panoptic([{0}] * 6), panoptic([{0}, {1}])]
    drawn = take(make(sets, *UNIFORM))
    assert fits([min(max(i - 5, 0), 2) for i in drawn], [6 / 14, 1 / 14, 1 / 2])
    plain = make(sets)
    assert type(plain) is TrainingSampler
    assert take(plain, 16) == take(TrainingSampler(8, seed=3), 16)


@pytest.mark.parametrize("world", [2, 3])
def test_ranks_share_one_stream(make, monkeypatch, world: int) -> None:
    sets = [panoptic([{i % 3} for i in range(7)]), panoptic([{1}] * 3)]
    for overrides in (("DATASETS.TRAIN_WEIGHTS", (1, 2)), UNIFORM):
        whole = take(make(sets, *overrides), 3000)
        monkeypatch.setattr(comm, "get_world_size", lambda: world)
        parts = []
        for rank in range(world):
            monkeypatch.setattr(comm, "get_rank", lambda rank=rank: rank)
            parts.append(take(make(sets, *overrides), 3000 // world))
        assert [i for step in zip(*parts, strict=True) for i in step] == whole
        monkeypatch.undo()


def test_the_seed_alone_makes_the_stream(make, monkeypatch) -> None:
    sets = [panoptic([{0}] * 9), panoptic([{1}] * 5)]
    weights = ("DATASETS.TRAIN_WEIGHTS", (1, 1))
    sampler = make(sets, *weights)
    first = take(sampler, 100)
    # Each worker process iterates over its own copy.
    assert take(sampler, 100) == take(pickle.loads(pickle.dumps(sampler)), 100) == first
    assert take(make(sets, *weights, "SEED", 4), 100) != first
    monkeypatch.setattr(comm, "shared_random_seed", lambda: 3)
    assert take(make(sets, *weights, "SEED", -1), 100) == first


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
    ],
)
def test_impossible_keys(make, config, overrides, message) -> None:
    with pytest.raises(UserError, match=message):
        make([panoptic([{0}])] * 2, *overrides)
    with pytest.raises(UserError, match=message):
        check_sampler_keys(config("DATASETS.TRAIN", ("a", "b"), *overrides))


def test_a_set_that_shows_no_class(make) -> None:
    sets = [panoptic([{0}]), panoptic([set()])]
    with pytest.raises(UserError, match="no image of data set b shows any class; take it out"):
        make(sets, *UNIFORM, "DATASETS.TRAIN_WEIGHTS", (1, 1))
    with pytest.raises(UserError, match="no training image shows any class"):
        make([panoptic([set(), set()])], *UNIFORM)


def test_group_weights_need_not_sum_to_one() -> None:
    drawn = take(GroupSampler([np.array([0]), np.array([1])], [30.0, 10.0], seed=0))
    assert fits(drawn, [0.75, 0.25])
