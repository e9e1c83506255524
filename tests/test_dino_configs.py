"""The configs of DINOv2 and DINOv3: what they describe can be built."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from detectron2.modeling import build_model

from ddep.modeling.encoder import encoder_parameters, freeze_encoder
from ddep.tasks import load_config, task_of

CONFIGS = Path(__file__).parents[1] / "configs"
# Those of Rein are based on those of Mask2Former.
FILES = sorted([*CONFIGS.rglob("ddep_dinov[23]_*.yaml"), *CONFIGS.rglob("rein_dinov[23]_*.yaml")])
# Parameters of the encoders in millions, without the last norm.
SIZES = {"small": 21.6, "base": 85.7, "large": 303.1}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_model_of_each_config(path: Path) -> None:
    cfg = load_config(str(path), ["MODEL.DEVICE", "meta"])
    task_of(cfg).check(cfg)
    with torch.device("meta"):  # shapes without numbers
        model = build_model(cfg)
    is_large = path.stem.endswith("large")
    indices = cfg.MODEL.DDEP.TIMM.OUT_INDICES
    assert len(model.backbone.model.blocks) == indices[-1] + 1 == (24 if is_large else 12)
    if is_large:
        assert indices == [7, 11, 15, 23]
    freeze_encoder(model)
    encoder = sum(parameter.numel() for parameter in encoder_parameters(model).values())
    assert encoder / 1e6 == pytest.approx(SIZES[path.stem.split("_")[-1]], rel=0.02)
    trained = sum(p.numel() for p in model.backbone.parameters() if p.requires_grad)
    if path.stem.startswith("rein"):
        predictor = model.sem_seg_head.predictor
        assert predictor.num_queries == 100
        linked = (predictor.linked_queries.transform, predictor.linked_queries.merge)
        trained += sum(p.numel() for layer in linked for p in layer.parameters())
        if is_large:
            assert round(trained / 1e6, 2) == 2.99  # as in the paper's tables
    else:
        assert trained == 0


def test_there_are_configs_of_all_sizes() -> None:
    assert len(FILES) == 2 * 2 * 3
