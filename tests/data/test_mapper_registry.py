from __future__ import annotations

import pytest

from ddep.data import check_training_sets
from ddep.data.augmentation import build_augmentations
from ddep.data.datasets.catalog import register
from ddep.data.mapper_registry import MAPPERS, mapper_class, register_mapper
from ddep.data.mappers import build_mapper
from ddep.errors import UserError


@pytest.fixture
def mapper(monkeypatch: pytest.MonkeyPatch) -> type:
    """A user's own mapper, which uses no labels."""
    monkeypatch.setattr("ddep.data.mapper_registry.MAPPERS", dict(MAPPERS))

    @register_mapper("test_mapper", "test_mapper_2")
    class Mapper:
        needs_labels = None
        augmentation = "resize_and_crop"

        def __init__(self, cfg, is_train: bool) -> None:
            self.is_train = is_train

        def __call__(self, record):
            return record

    return Mapper


def test_a_mapper_is_found_by_each_of_its_names(mapper: type, config) -> None:
    assert mapper_class("test_mapper") is mapper_class("test_mapper_2") is mapper
    made = build_mapper(config("INPUT.DATASET_MAPPER_NAME", "test_mapper_2"), is_train=True)
    assert isinstance(made, mapper) and made.is_train


def test_a_mapper_without_labels_is_treated_as_denoising(mapper: type, config) -> None:
    register("test_unlabelled", lambda: [{"file_name": "a"}], labelled_for=())
    overrides = ["DATASETS.TRAIN", ("test_unlabelled",), "INPUT.DATASET_MAPPER_NAME"]
    check_training_sets(config(*overrides, "test_mapper"))
    with pytest.raises(UserError, match="test_unlabelled, which has labels for nothing, but"):
        check_training_sets(config(*overrides, "mask_former_semantic"))
    uniform = ["DATALOADER.SAMPLER_TRAIN", "ClassUniformSampler"]
    with pytest.raises(UserError, match="needs labels, but denoising has none"):
        check_training_sets(config(*overrides, "test_mapper", *uniform))
    padding = ["INPUT.SIZE_DIVISIBILITY", 64, "INPUT.DATASET_MAPPER_NAME"]
    number = [
        len(build_augmentations(config(*padding, name), is_train=True).augs)
        for name in ("test_mapper", "mask_former_semantic")
    ]
    assert number[1] == number[0] + 1


def test_an_unknown_mapper() -> None:
    with pytest.raises(UserError, match="NAME is 'dino'; expected one of .*ddep_denoising"):
        mapper_class("dino")
