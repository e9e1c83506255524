"""Which task serves a meta-architecture, and the errors if there is none."""

from __future__ import annotations

from typing import ClassVar

import pytest
from detectron2.config import CfgNode, get_cfg

from ddep.errors import UserError
from ddep.tasks import DenoisingTask, SegmentationTask, register_task, registered_tasks, task_of
from ddep.tasks import registry as registry_module


def config_of(meta_architecture: str) -> CfgNode:
    cfg = get_cfg()
    cfg.MODEL.META_ARCHITECTURE = meta_architecture
    return cfg


def test_an_unknown_meta_architecture_is_named_with_a_near_one() -> None:
    message = r"META_ARCHITECTURE is 'MaskFormr'; did you mean MaskFormer\? .*DenoisingPretrainer"
    with pytest.raises(UserError, match=message):
        task_of(config_of("MaskFormr"))
    with pytest.raises(UserError, match="META_ARCHITECTURE is 'Zzz'; expected one of .*IMPORTS"):
        task_of(config_of("Zzz"))


def test_a_model_without_a_task_is_told_from_an_unknown_one() -> None:
    # detectron2 registers it.
    with pytest.raises(UserError, match="is 'RetinaNet', which no task serves; .*IMPORTS"):
        task_of(config_of("RetinaNet"))


def test_a_task_takes_over_a_meta_architecture(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry_module, "_TASKS", dict(registry_module._TASKS))
    before = task_of(config_of("MaskFormer"))
    assert type(before) is SegmentationTask

    @register_task
    class OtherTask(SegmentationTask):
        meta_architectures: ClassVar = ("MaskFormer", "OtherFormer")

    assert type(task_of(config_of("MaskFormer"))) is OtherTask
    assert task_of(config_of("MaskFormer")) is task_of(config_of("OtherFormer"))
    kinds = [type(task) for task in registered_tasks()]
    assert SegmentationTask not in kinds
    assert kinds.count(OtherTask) == 1 and DenoisingTask in kinds
