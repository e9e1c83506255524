"""Pretraining, fine-tuning and evaluation with every decoder that a config can name."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from ddep.checkpoint import read_checkpoint
from ddep.data.datasets import dataset_root, register_all
from ddep.data.datasets.shapes import generate_shapes
from ddep.engine import main
from tests.engine.tiny_runs import (
    MODEL,
    arguments,
    denoising_config,
    metrics,
    one_thread,  # noqa: F401
    write_config,
)

pytestmark = pytest.mark.slow

BASE, ENCODER, DEFORMABLE = (
    "BasePixelDecoder",
    "TransformerEncoderPixelDecoder",
    "MSDeformAttnPixelDecoder",
)
PRETRAINED = ("backbone.", "sem_seg_head.pixel_decoder.")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with generated shapes in ``datasets``, which is $DETECTRON2_DATASETS."""
    folder = tmp_path_factory.mktemp("mask_former_runs")
    usual = dataset_root()
    generate_shapes(folder / "datasets" / "shapes", train=2, val=1, unlabelled=2, size=48)
    register_all(folder / "datasets")
    yield folder
    register_all(usual)


def panoptic_config(folder: Path, pixel_decoder: str, in_feature: str, **keys: Any) -> str:
    head = {"NUM_CLASSES": 8, "PIXEL_DECODER_NAME": pixel_decoder}
    mask_former = {"TRANSFORMER_IN_FEATURE": in_feature, "TEST": {"PANOPTIC_ON": True}}
    return write_config(
        folder,
        f"{pixel_decoder}_{in_feature}",
        MODEL__META_ARCHITECTURE="MaskFormer",
        MODEL__SEM_SEG_HEAD=head,
        MODEL__MASK_FORMER=mask_former,
        DATASETS__TRAIN=["shapes_panoptic_train"],
        DATASETS__TEST=["shapes_panoptic_val"],
        INPUT__DATASET_MAPPER_NAME="mask_former_panoptic",
        SOLVER__MAX_ITER=2,
        **keys,
    )


@pytest.mark.parametrize("pixel_decoder", [BASE, ENCODER])
def test_pretraining_then_fine_tuning(folder: Path, pixel_decoder: str) -> None:
    """What denoising taught the backbone and the pixel decoder is where fine-tuning starts."""
    words = ["MODEL.SEM_SEG_HEAD.PIXEL_DECODER_NAME", pixel_decoder, "SOLVER.MAX_ITER", 2]
    config = denoising_config(folder, folder / "datasets" / "shapes" / "unlabelled")
    pretrained = folder / "pretrained" / pixel_decoder
    words += ["MODEL.DDEP.MULTI_SCALE", True, "OUTPUT_DIR", pretrained]
    assert main(arguments("--config-file", config, *words))["denoising"]["noise_mse"] < 5
    before = read_checkpoint(str(pretrained / "model_final.pth"))["model"]

    fine_tuned = folder / "fine_tuned" / pixel_decoder
    config = panoptic_config(folder, pixel_decoder, "res5", SOLVER__BASE_LR=1e-9)
    words = ["MODEL.WEIGHTS", pretrained / "model_final.pth", "OUTPUT_DIR", fine_tuned]
    assert "PQ" in main(arguments("--config-file", config, *words))["panoptic_seg"]
    after = read_checkpoint(str(fine_tuned / "model_final.pth"))["model"]
    shared = {name for name in before if name.startswith(PRETRAINED)}
    assert shared == {name for name in after if name.startswith(PRETRAINED)}
    for name in shared:
        torch.testing.assert_close(after[name], before[name], rtol=0, atol=1e-7)


@pytest.mark.parametrize(
    ("pixel_decoder", "in_feature", "mask_loss"),
    [
        (BASE, "res4", "auto"),
        (BASE, "pixel_embedding", "auto"),
        (ENCODER, "transformer_encoder", "auto"),
        (DEFORMABLE, "transformer_encoder", "points"),
        (BASE, "multi_scale_pixel_decoder", "auto"),
        (ENCODER, "multi_scale_pixel_decoder", "auto"),
        (DEFORMABLE, "multi_scale_pixel_decoder", "dense"),
    ],
)
def test_every_combination_trains(
    folder: Path, pixel_decoder: str, in_feature: str, mask_loss: str
) -> None:
    output = folder / f"{pixel_decoder}_{in_feature}"
    config = panoptic_config(folder, pixel_decoder, in_feature, OUTPUT_DIR=str(output))
    words = ["MODEL.DDEP.MASK_LOSS", mask_loss, "DATALOADER.NUM_WORKERS", 0]
    results = main(arguments("--config-file", config, *words))
    assert {"panoptic_seg", "sem_seg"} <= results.keys()
    [losses] = [line for line in metrics(output) if "total_loss" in line]
    layers = MODEL["MODEL"]["MASK_FORMER"]["DEC_LAYERS"]
    names = {f"loss_{kind}" for kind in ("ce", "mask", "dice")}
    names |= {f"{name}_{layer}" for name in names for layer in range(layers - 1)}
    assert {name for name in losses if name.startswith("loss_")} == names
