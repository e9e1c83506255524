"""Registries of mappers: of labelled images, by the names that ``INPUT.DATASET_MAPPER_NAME`` takes,
and of target images."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Protocol, TypeVar

from detectron2.config import CfgNode

from ddep.data.record import Record
from ddep.errors import UserError


class Mapper(Protocol):
    """Turns a data set's record into a model's input; constructed with ``(cfg, is_train)``.

    Attributes:
        needs_labels: what a data set must be labelled for to train with this mapper, one of the
            words in :mod:`ddep.data.datasets.label_kinds`; None if it uses no labels.
        augmentation: the mapper's training augmentations, a key of
            :data:`ddep.data.augmentation.RECIPES`.
    """

    needs_labels: ClassVar[str | None]
    augmentation: ClassVar[str]

    def __init__(self, cfg: CfgNode, is_train: bool) -> None: ...

    def __call__(self, record: Record) -> Record: ...


class TargetMapper(Protocol):
    """Turns a record of DATASETS.TARGET into a sample without labels; constructed with ``(cfg)``.

    Samples have ``is_target``, True, and ``image``, ``file_name``, ``height``, ``width`` and
    ``seed`` as :class:`ddep.data.mappers.target.WeakTargetMapper` says.
    """

    def __init__(self, cfg: CfgNode) -> None: ...

    def __call__(self, record: Record) -> Record: ...


MapperClass = TypeVar("MapperClass", bound=type)

MAPPERS: dict[str, type[Mapper]] = {}
# By the names that adaptation methods ask for.
TARGET_MAPPERS: dict[str, type[TargetMapper]] = {}


def register_mapper(*names: str) -> Callable[[MapperClass], MapperClass]:
    """Class decorator that registers a mapper under each of ``names``."""

    def register(mapper: MapperClass) -> MapperClass:
        MAPPERS.update(dict.fromkeys(names, mapper))
        return mapper

    return register


def register_target_mapper(name: str) -> Callable[[MapperClass], MapperClass]:
    """Class decorator that registers a :class:`TargetMapper` under ``name``."""

    def register(mapper: MapperClass) -> MapperClass:
        TARGET_MAPPERS[name] = mapper
        return mapper

    return register


def mapper_class(name: str) -> type[Mapper]:
    """The class of the mapper called ``name``.

    Raises:
        UserError: there is none.
    """
    if name not in MAPPERS:
        raise UserError(
            f"INPUT.DATASET_MAPPER_NAME is {name!r}; expected one of {', '.join(MAPPERS)}"
        )
    return MAPPERS[name]
