"""Per-pixel segmentation: what is refused, what pretraining gives it, and a run with few labels."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.modeling import build_model
from PIL import Image

from ddep.checkpoint.groups import TRANSFERABLE, group_of
from ddep.checkpoint.loading import load_weights
from ddep.engine import main, setup
from ddep.errors import UserError
from ddep.inference import predict_files
from ddep.tasks import load_config
from tests.engine.tiny_runs import arguments, metrics, per_pixel_config, shapes_root
from tests.modeling.meta_arch.batches import KINDS, PER_PIXEL, config_of


@pytest.fixture
def shapes(tmp_path: Path) -> Iterator[Path]:
    """A folder with the generated shapes of the data sets shapes_panoptic_*."""
    with shapes_root(tmp_path):
        yield tmp_path


@pytest.mark.parametrize("transfer", [TRANSFERABLE, ["backbone"], ["encoder", "mask_features"]])
def test_takes_over_what_denoising_has_pretrained(transfer: list[str]) -> None:
    pretrained = build_model(config_of(KINDS[0]))
    model = build_model(config_of({**PER_PIXEL, "HEAD": "PerPixelBaselineHead"}))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = dict(pretrained.state_dict())
    report = load_weights(model, dict(state), "pretrained.pth", transfer=transfer)
    loaded = {name for name in before if group_of(name) in transfer}
    assert {group_of(name) for name in loaded} == set(transfer)
    assert set(report.loaded) == loaded
    for name, value in model.state_dict().items():
        assert torch.equal(value, state[name] if name in loaded else before[name]), name


@pytest.mark.parametrize(
    ("head", "keys", "message"),
    [
        (
            "PerPixelBaselineHead",
            ["MODEL.SEM_SEG_HEAD.NAME", "MaskFormerHead"],
            "'MaskFormerHead', which .* SemanticSegmentor cannot use; .*PerPixelBaselineHead",
        ),
        (
            "PerPixelBaselineHead",
            ["MODEL.SEM_SEG_HEAD.NAME", "Absent"],
            "MODEL.SEM_SEG_HEAD.NAME is 'Absent'; expected one of",
        ),
        (
            "PerPixelBaselineHead",
            ["MODEL.SEM_SEG_HEAD.NUM_CLASSES", 5],
            "NUM_CLASSES is 5; data set shapes_panoptic_train has 8",
        ),
        (
            "PerPixelBaselineHead",
            ["INPUT.DATASET_MAPPER_NAME", "mask_former_panoptic"],
            "takes mask_former_semantic",
        ),
        (
            "DeepLabV3PlusHead",
            ["INPUT.CROP.ENABLED", True, "INPUT.CROP.TYPE", "relative_range"],
            "INPUT.CROP.TYPE is 'relative_range'; DeepLabV3PlusHead needs absolute",
        ),
    ],
)
def test_refused(head: str, keys: list[Any], message: str, shapes: Path) -> None:
    with pytest.raises(UserError, match=message):
        setup(arguments("--config-file", per_pixel_config(shapes, head), *keys))


def test_image_pooling_of_deeplab_is_explained(shapes: Path) -> None:
    crop = ["INPUT.CROP.ENABLED", True, "INPUT.CROP.TYPE", "absolute", "INPUT.CROP.SIZE", "(32,32)"]
    config = per_pixel_config(shapes, "DeepLabV3PlusHead")
    setup(arguments("--config-file", config, *crop))
    log = (shapes / "finetune" / "log.txt").read_text()
    assert "DeepLabV3PlusHead pools over windows of INPUT.CROP.SIZE (32, 32)" in log


@pytest.mark.parametrize("head", ["PerPixelBaselineHead", "DeepLabV3PlusHead"])
def test_run_with_few_labels_one_image_at_a_time(head: str, shapes: Path) -> None:
    """DeepLab's batch norms do with one image; its image pooling has none."""
    config = per_pixel_config(shapes, head)
    words = ["DATASETS.LABEL_COUNT", 3, "SOLVER.IMS_PER_BATCH", 1, "SOLVER.EMA.ENABLED", True]
    results = main(arguments("--config-file", config, *words))
    folder = shapes / "finetune"
    name, *images = (folder / "labelled_images.txt").read_text().splitlines()
    assert (name, len(images)) == ("[shapes_panoptic_train]", 3)
    losses = [line["total_loss"] for line in metrics(folder) if "total_loss" in line]
    assert losses
    assert np.isfinite(losses).all()
    assert 0 < results["sem_seg"]["pACC"] <= 100
    checkpoint = ["MODEL.WEIGHTS", str(folder / "model_final.pth")]
    again = main(arguments("--config-file", config, "--eval-only", *checkpoint))
    assert again["sem_seg"] == pytest.approx(results["sem_seg"], rel=0, abs=0, nan_ok=True)
    cfg = load_config(config, [*checkpoint, "MODEL.DEVICE", "cpu"])
    pictures = predict_files(cfg, [shapes / "datasets" / "shapes" / "val"], shapes / "drawn")
    assert len(pictures) == 2
    for picture in pictures:
        assert np.asarray(Image.open(picture)).std() > 0
