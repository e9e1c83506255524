from __future__ import annotations

from collections.abc import Callable

import pytest
from detectron2.config import CfgNode, get_cfg

from ddep.config import add_ddep_config


@pytest.fixture(scope="session")
def config() -> Callable[..., CfgNode]:
    """Makes the default config of semantic segmentation with KEY, VALUE, ... overrides."""

    def make(*overrides) -> CfgNode:
        cfg = get_cfg()
        add_ddep_config(cfg)
        cfg.INPUT.DATASET_MAPPER_NAME = "mask_former_semantic"
        cfg.merge_from_list(list(overrides))
        return cfg

    return make
