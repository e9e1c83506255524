"""DETR as a detector: trained, evaluated, drawn, and its mistakes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from detectron2.modeling import build_model
from PIL import Image

from ddep.engine import main
from ddep.errors import UserError
from ddep.inference import predict_files
from ddep.tasks import load_config, task_of
from tests.engine.tiny_runs import arguments, detr_config, metrics, one_thread, shapes_root

__all__ = ["one_thread"]


@pytest.fixture
def config(tmp_path: Path) -> Iterator[str]:
    with shapes_root(tmp_path):
        yield detr_config(tmp_path)


def test_boxes_are_trained_evaluated_and_drawn(config: str, tmp_path: Path) -> None:
    words = ("SOLVER.MAX_ITER", 2, "TEST.BEST_METRIC", "bbox/AP", "TEST.EVAL_PERIOD", 1)
    trained = main(arguments("--config-file", config, *words))
    assert list(trained) == ["bbox"]
    folder = tmp_path / "detr"
    assert (folder / "model_best.pth").exists()
    logged = next(line for line in metrics(folder) if "total_loss" in line)
    names = {f"loss_{kind}{suffix}" for kind in ("ce", "bbox", "giou") for suffix in ("", "_0")}
    assert {name for name in logged if name.startswith("loss_")} == names
    assert 0 <= logged["class_error"] <= 100
    assert logged["cardinality_error"] >= 0
    assert logged["total_loss"] == pytest.approx(sum(logged[name] for name in names))
    weights = ("MODEL.WEIGHTS", folder / "model_final.pth")
    output = ("OUTPUT_DIR", tmp_path / "again")
    again = main(arguments("--config-file", config, "--eval-only", *weights, *output))
    assert again["bbox"] == pytest.approx(trained["bbox"], nan_ok=True)
    boxes = json.loads((folder / "inference" / "bbox" / "coco_instances_results.json").read_text())
    assert len(boxes) == 2 * 5  # images, queries
    assert np.asarray(Image.open(folder / "inference" / "detection.png")).std() > 10
    cfg = load_config(config, ["MODEL.DEVICE", "cpu", *map(str, weights)])
    images = tmp_path / "datasets" / "shapes" / "val"
    assert len(predict_files(cfg, [images], tmp_path / "pictures")) == 2


def test_few_labels(config: str, tmp_path: Path) -> None:
    words = ("SOLVER.MAX_ITER", 1, "DATASETS.TEST", "()", "DATASETS.LABEL_COUNT", 3)
    main(arguments("--config-file", config, *words))
    lines = (tmp_path / "detr" / "labelled_images.txt").read_text().splitlines()
    assert lines[0] == "[shapes_instance_train]"
    assert len(lines) == 4


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("MODEL.DETR.NUM_CLASSES", 3),
            "MODEL.DETR.NUM_CLASSES is 3; data set shapes_instance_train has 4 classes of things",
        ),
        (("MODEL.DETR.HIDDEN_DIM", 30), "MODEL.DETR.HIDDEN_DIM is 30; expected a multiple of 4"),
        (("MODEL.DETR.DEC_LAYERS", 0), "MODEL.DETR.DEC_LAYERS is 0; expected at least 1"),
        (("MODEL.DETR.NUM_OBJECT_QUERIES", 0), "NUM_OBJECT_QUERIES is 0; expected at least 1"),
        (
            ("MODEL.DETR.POSITION_EMBEDDING", "cosine"),
            "MODEL.DETR.POSITION_EMBEDDING is 'cosine'; expected sine or learned",
        ),
        (
            ("INPUT.DATASET_MAPPER_NAME", "detection"),
            "INPUT.DATASET_MAPPER_NAME is 'detection', but MODEL.META_ARCHITECTURE Detr takes detr",
        ),
        (("TEST.AUG.ENABLED", True), "TEST.AUG.ENABLED is True, but MODEL.META_ARCHITECTURE Detr"),
        (
            ("DATASETS.TRAIN", "('shapes_panoptic_train',)"),
            "shapes_panoptic_train",
        ),
    ],
)
def test_mistakes_are_one_line(config: str, words: tuple[object, ...], message: str) -> None:
    with pytest.raises(UserError) as caught:
        main(arguments("--config-file", config, "SOLVER.MAX_ITER", 1, *words))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_learned_positions_train_and_limit_the_size(config: str) -> None:
    words = ("SOLVER.MAX_ITER", 1, "MODEL.DETR.POSITION_EMBEDDING", "learned")
    assert "bbox" in main(arguments("--config-file", config, *words))
    large = ("INPUT.CROP.ENABLED", False, "INPUT.MIN_SIZE_TRAIN", (1632,))
    with pytest.raises(UserError, match="learned, which has positions for 50 rows and columns"):
        main(arguments("--config-file", config, *words, *large, "INPUT.MAX_SIZE_TRAIN", 1632))


def test_compiled_parts_are_the_models(config: str) -> None:
    cfg = load_config(config, ["MODEL.DEVICE", "cpu"])
    model = build_model(cfg)
    assert task_of(cfg).networks(model) == [model.backbone, model.transformer]
