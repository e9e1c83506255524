"""Configs like Mask2Former's load, and build the models of its checkpoints."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml
from detectron2.data import DatasetCatalog
from detectron2.modeling import META_ARCH_REGISTRY

from ddep.data.mappers import build_mapper
from ddep.tasks import load_config
from tests.mask2former_configs import (
    CONFIGS,
    DEFAULTS,
    R50,
    R101,
    SWIN_B,
    SWIN_L,
    SWIN_S,
    SWIN_T,
    SWINS,
    TASKS,
    Task,
    load,
    queries,
)
from tests.mask2former_parameters import Shapes, mask2former, resnet, swin

# Parameters in millions, as the Mask2Former paper's tables give them (COCO panoptic, table 1).
MILLIONS = {R50: 44, R101: 63, SWIN_T: 47, SWIN_S: 69, SWIN_B: 107, SWIN_L: 216}


def expected_parameters(task: Task, backbone: str) -> Shapes:
    if backbone in SWINS:
        embed_dim, depths, heads, window, _ = SWINS[backbone]
        shapes = swin(embed_dim, depths, [heads * 2**stage for stage in range(4)], window)
        channels = [embed_dim * 2**stage for stage in range(4)]
    else:
        frozen = task.norm == "FrozenBN" and (backbone, task.side) != (R101, 512)
        shapes = resnet([3, 4, 6 if backbone == R50 else 23, 3], frozen)
        channels = [256, 512, 1024, 2048]
    return mask2former(shapes, channels, task.classes, queries(task, backbone))


@pytest.mark.parametrize(
    ("name", "backbone"), CONFIGS, ids=["-".join(config) for config in CONFIGS]
)
def test_config_builds_the_model_of_the_checkpoint(
    tmp_path: Path, name: str, backbone: str
) -> None:
    task = TASKS[name]
    cfg = load(tmp_path, task, backbone)
    with torch.device("meta"):
        model = META_ARCH_REGISTRY.get(cfg.MODEL.META_ARCHITECTURE)(cfg)
    found = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    assert found == expected_parameters(task, backbone)
    if name == "coco-panoptic":
        millions = sum(parameter.numel() for parameter in model.parameters()) / 1e6
        assert abs(millions - MILLIONS[backbone]) < 1


@pytest.mark.parametrize("name", TASKS)
def test_data_of_the_config(tmp_path: Path, name: str) -> None:
    task = TASKS[name]
    cfg = load(tmp_path, task, task.backbones[0])
    assert list(cfg.DATASETS.TRAIN + cfg.DATASETS.TEST) == [task.train, task.test]
    assert {task.train, task.test} <= set(DatasetCatalog.list())
    if task.side:
        sizes = cfg.INPUT.MIN_SIZE_TRAIN
        assert (len(sizes), sizes[0], sizes[-1]) == (16, task.side // 2, 2 * task.side)
        assert tuple(cfg.INPUT.CROP.SIZE) == task.crop
    # The mapper compares the ignored label with the data set's.
    mapper = build_mapper(cfg, is_train=True)
    assert (mapper.num_classes, mapper.ignore_label) == (task.classes, task.ignore)


def test_every_key_of_mask2former_is_known_and_has_its_default(tmp_path: Path) -> None:
    path = tmp_path / "defaults.yaml"
    # Mask2Former has one default for all tasks; here each task has its own.
    path.write_text("VERSION: 2\nINPUT: {DATASET_MAPPER_NAME: mask_former_semantic}\n")
    defaults = load_config(str(path))
    path.write_text(yaml.safe_dump(DEFAULTS))
    assert load_config(str(path)) == defaults
