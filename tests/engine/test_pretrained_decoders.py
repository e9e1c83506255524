"""Runs that pretrain a decoder on a frozen encoder, and the detectron2 models that take it over."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.modeling import build_backbone, build_model
from torch import Tensor

from ddep.checkpoint import Checkpointer
from ddep.checkpoint.groups import group_of
from ddep.engine import Trainer, setup
from ddep.errors import UserError
from ddep.tasks import load_config
from tests.engine.tiny_runs import arguments, denoising_config, one_thread, write_images  # noqa: F401

pytestmark = pytest.mark.slow

RESNET = {
    "MODEL.BACKBONE.FREEZE_AT": 0,
    "MODEL.RESNETS.STEM_TYPE": "basic",
    "MODEL.RESNETS.STEM_OUT_CHANNELS": 4,
    "MODEL.RESNETS.RES2_OUT_CHANNELS": 8,
    "MODEL.RESNETS.WIDTH_PER_GROUP": 4,
    "MODEL.RESNETS.RES5_MULTI_GRID": [1, 1, 1],
    "MODEL.RESNETS.NORM": "BN",  # whose statistics must stay too
    "MODEL.RESNETS.OUT_FEATURES": ["res2", "res3", "res4", "res5"],
}
FPN = RESNET | {
    "MODEL.BACKBONE.NAME": "build_resnet_fpn_backbone",
    "MODEL.FPN.IN_FEATURES": ["res2", "res3", "res4", "res5"],
    "MODEL.FPN.OUT_CHANNELS": 16,
    "MODEL.DDEP.DECODER": "fpn",
}
DEEPLAB = RESNET | {
    "MODEL.BACKBONE.NAME": "build_resnet_deeplab_backbone",
    "MODEL.SEM_SEG_HEAD.NAME": "DeepLabV3PlusHead",
    "MODEL.SEM_SEG_HEAD.IN_FEATURES": ["res2", "res5"],
    "MODEL.SEM_SEG_HEAD.PROJECT_CHANNELS": [4],
    "MODEL.SEM_SEG_HEAD.ASPP_CHANNELS": 8,
    "MODEL.SEM_SEG_HEAD.CONVS_DIM": 8,
    "MODEL.SEM_SEG_HEAD.NORM": "BN",
    "MODEL.DDEP.DECODER": "deeplab",
}
MASK_RCNN = {
    "MODEL.META_ARCHITECTURE": "GeneralizedRCNN",
    "MODEL.MASK_ON": True,
    "MODEL.ANCHOR_GENERATOR.SIZES": [[8], [16], [32], [64], [128]],
    "MODEL.RPN.IN_FEATURES": ["p2", "p3", "p4", "p5", "p6"],
    "MODEL.ROI_HEADS.NAME": "StandardROIHeads",
    "MODEL.ROI_HEADS.IN_FEATURES": ["p2", "p3", "p4", "p5"],
    "MODEL.ROI_BOX_HEAD.NAME": "FastRCNNConvFCHead",
    "MODEL.ROI_BOX_HEAD.NUM_FC": 1,
    "MODEL.ROI_BOX_HEAD.FC_DIM": 8,
    "MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION": 7,
    "MODEL.ROI_MASK_HEAD.NAME": "MaskRCNNConvUpsampleHead",
    "MODEL.ROI_MASK_HEAD.NUM_CONV": 1,
    "MODEL.ROI_MASK_HEAD.CONV_DIM": 8,
}
SEMANTIC = {
    "MODEL.META_ARCHITECTURE": "SemanticSegmentor",
    "MODEL.SEM_SEG_HEAD.NUM_CLASSES": 5,
    "INPUT.CROP.ENABLED": False,  # its side would have to be a multiple of 32
}


def words(*settings: dict[str, Any]) -> list[str]:
    return [str(word) for keys in settings for pair in keys.items() for word in pair]


def snapshot(model: torch.nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


@pytest.mark.parametrize(
    ("pretrained", "finetuned", "start", "new"),
    [
        (FPN, MASK_RCNN, "backbone.fpn_", {"proposal_generator", "roi_heads"}),
        (DEEPLAB, SEMANTIC, "sem_seg_head.decoder.", {"predictor"}),
    ],
    ids=["fpn", "deeplab"],
)
def test_a_decoder_is_trained_on_a_frozen_encoder_and_taken_over(
    tmp_path: Path,
    pretrained: dict[str, Any],
    finetuned: dict[str, Any],
    start: str,
    new: set[str],
) -> None:
    config = denoising_config(tmp_path, write_images(tmp_path / "images"))
    torch.manual_seed(0)
    plain = RESNET | {"MODEL.BACKBONE.NAME": "build_resnet_backbone"}
    encoder = build_backbone(load_config(config, words(plain))).state_dict()
    torch.save({f"backbone.{name}": tensor for name, tensor in encoder.items()}, tmp_path / "r.pth")

    run = {"MODEL.WEIGHTS": tmp_path / "r.pth", "MODEL.DDEP.FREEZE_BACKBONE": True}
    run |= {"DATASETS.TEST": "()", "SOLVER.MAX_ITER": 2, "MODEL.DEVICE": "cpu"}
    trainer = Trainer(setup(arguments("--config-file", config, *words(pretrained, run))))
    trainer.resume_or_load(resume=False)
    before = snapshot(trainer.model)
    trainer.train()
    after = snapshot(trainer.model)
    inner = "backbone.bottom_up." if pretrained is FPN else "backbone."
    for name, tensor in encoder.items():
        assert torch.equal(after[inner + name], tensor), name
    learned = {name for name in after if not torch.equal(before[name], after[name])}
    assert {name for name in after if name.startswith(start)} <= learned
    assert not any(name.startswith(inner) for name in learned)
    assert {group["name"].split()[0] for group in trainer.optimizer.param_groups} == {"head"}

    cfg = load_config(config, words(pretrained, finetuned, {"MODEL.DEVICE": "cpu"}))
    model = build_model(cfg)
    path = str(tmp_path / "pretrain" / "model_final.pth")
    checkpointer = Checkpointer(model)
    checkpointer.load(path, checkpointables=[], transfer=cfg.MODEL.DDEP.TRANSFER)
    report = checkpointer.report
    assert {group_of(name) for name in report.new} == new
    assert report.mismatched == {}
    assert {group_of(name) for name in report.unused} == {"denoising_head"}
    found = snapshot(model)
    names = {name for name in after if group_of(name) != "denoising_head"}
    assert set(report.loaded) == names
    assert all(torch.equal(found[name], after[name]) for name in names)

    checkpointer.load(path, checkpointables=[], transfer=["backbone"])
    assert {group_of(name) for name in checkpointer.report.left_out} == {"fpn"}


def test_an_fpn_on_an_encoder_without_weights_is_refused(tmp_path: Path) -> None:
    config = denoising_config(tmp_path, write_images(tmp_path / "images"))
    trainer = Trainer(setup(arguments("--config-file", config, *words(FPN))))
    fpn = {name: t for name, t in trainer.model.state_dict().items() if "bottom_up" not in name}
    torch.save(fpn, tmp_path / "fpn.pth")
    frozen = {"MODEL.WEIGHTS": tmp_path / "fpn.pth", "MODEL.DDEP.FREEZE_BACKBONE": True}
    trainer = Trainer(setup(arguments("--config-file", config, *words(FPN, frozen))))
    with pytest.raises(
        UserError, match=r"fpn\.pth has 0 of its 53 weights, .* backbone\.bottom_up\.\S+ is missing"
    ):
        trainer.resume_or_load(resume=False)
