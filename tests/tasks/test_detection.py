"""Runs of Mask R-CNN and Faster R-CNN, from the command line's words to results and pictures."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.modeling import build_model
from PIL import Image
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone

from ddep.checkpoint import read_checkpoint
from ddep.engine import main
from ddep.errors import UserError
from ddep.export import convert_file
from ddep.inference import predict_files
from ddep.tasks import load_config, task_of
from tests.engine.tiny_runs import arguments, detection_config, one_thread, shapes_root

__all__ = ["one_thread"]


@pytest.fixture
def config(tmp_path: Path) -> Iterator[str]:
    with shapes_root(tmp_path):
        yield detection_config(tmp_path)


def test_boxes_and_masks_are_trained_evaluated_and_drawn(config: str, tmp_path: Path) -> None:
    words = ("SOLVER.MAX_ITER", 2, "TEST.BEST_METRIC", "bbox/AP", "TEST.EVAL_PERIOD", 1)
    trained = main(arguments("--config-file", config, *words))
    assert list(trained) == ["bbox", "segm"]
    assert trained["bbox"].keys() == trained["segm"].keys()
    folder = tmp_path / "detection"
    assert (folder / "model_best.pth").exists()
    weights = ("MODEL.WEIGHTS", folder / "model_final.pth")
    output = ("OUTPUT_DIR", tmp_path / "again")
    again = main(arguments("--config-file", config, "--eval-only", *weights, *output))
    assert again.keys() == trained.keys()
    for kind, metrics in again.items():
        assert metrics == pytest.approx(trained[kind], nan_ok=True)
    results = json.loads((tmp_path / "again" / "inference" / "results.json").read_text())
    assert results.keys() == {"bbox", "segm"}
    # Without masks: the same boxes.
    boxes = main(
        arguments("--config-file", config, "--eval-only", *weights, *output, "MODEL.MASK_ON", False)
    )
    assert boxes.keys() == {"bbox"}
    assert boxes["bbox"] == pytest.approx(trained["bbox"], nan_ok=True)
    picture = Image.open(folder / "inference" / "detection.png")
    assert np.asarray(picture).std() > 10
    cfg = load_config(config, ["MODEL.DEVICE", "cpu", *map(str, weights)])
    images = tmp_path / "datasets" / "penn_fudan" / "PNGImages"
    written = predict_files(cfg, [images], tmp_path / "pictures")
    assert len(written) == len(list(images.iterdir()))


def test_few_labels(config: str, tmp_path: Path) -> None:
    words = ("SOLVER.MAX_ITER", 1, "DATASETS.TEST", "()", "DATASETS.LABEL_COUNT", 3)
    main(arguments("--config-file", config, *words))
    lines = (tmp_path / "detection" / "labelled_images.txt").read_text().splitlines()
    assert lines[0] == "[penn_fudan_instance_train]"
    assert len(lines) == 4


def test_training_starts_from_an_fpn_that_denoising_pretrained(config: str, tmp_path: Path) -> None:
    words = ("SOLVER.MAX_ITER", 2, "DATASETS.TEST", "()")
    denoising = (
        *("MODEL.META_ARCHITECTURE", "DenoisingPretrainer", "MODEL.DDEP.DECODER", "fpn"),
        *("MODEL.MASK_FORMER.SIZE_DIVISIBILITY", -1, "OUTPUT_DIR", tmp_path / "denoising"),
    )
    main(arguments("--config-file", config, *words, *denoising))
    path = tmp_path / "denoising" / "model_final.pth"
    main(arguments("--config-file", config, *words, "MODEL.WEIGHTS", path, "SOLVER.BASE_LR", 0.0))
    kept = read_checkpoint(str(tmp_path / "detection" / "model_final.pth"))["model"]
    pretrained = read_checkpoint(str(path))["model"]
    fpn = [name for name in pretrained if name.startswith("backbone.fpn_")]
    assert len(fpn) == 16
    assert all(torch.equal(kept[name], pretrained[name]) for name in fpn)
    rate = ("SOLVER.BASE_LR", 0.1, "SOLVER.WARMUP_ITERS", 0)
    main(arguments("--config-file", config, *words, "MODEL.WEIGHTS", path, *rate))
    trained = read_checkpoint(str(tmp_path / "detection" / "model_final.pth"))["model"]
    assert [name for name in fpn if torch.equal(trained[name], pretrained[name])] == []


def test_converted_weights_of_torchvision_are_taken_but_for_the_classes(
    config: str, tmp_path: Path
) -> None:
    body = resnet_fpn_backbone(backbone_name="resnet18", weights=None)
    theirs = MaskRCNN(body, num_classes=5).state_dict()
    torch.save(theirs, tmp_path / "theirs.pth")
    conversion = convert_file(str(tmp_path / "theirs.pth"), str(tmp_path / "ours.pth"))
    # Frozen norms, as torchvision fine-tunes with, count no batches.
    own = {"MODEL.ROI_HEADS.NUM_CLASSES": 1, "MODEL.RESNETS.NORM": "FrozenBN"}
    keys = conversion.config | own
    words = [word for pair in keys.items() for word in pair]
    main(
        arguments(
            *("--config-file", config, *words, "MODEL.WEIGHTS", tmp_path / "ours.pth"),
            *("SOLVER.MAX_ITER", 1, "SOLVER.BASE_LR", 0.0, "DATASETS.TEST", "()"),
        )
    )
    trained = read_checkpoint(str(tmp_path / "detection" / "model_final.pth"))["model"]
    weights = read_checkpoint(str(tmp_path / "ours.pth"))["model"]
    assert weights.keys() == trained.keys()
    new = [name for name in trained if trained[name].shape != weights[name].shape]
    assert sorted({name.rsplit(".", 1)[0] for name in new}) == [
        "roi_heads.box_predictor.bbox_pred",
        "roi_heads.box_predictor.cls_score",
        "roi_heads.mask_head.predictor",
    ]
    same = [name for name in trained if name not in new]
    assert all(torch.equal(trained[name], weights[name]) for name in same)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("MODEL.ROI_HEADS.NUM_CLASSES", 3),
            "MODEL.ROI_HEADS.NUM_CLASSES is 3; data set penn_fudan_instance_train has 1 classes",
        ),
        (("MODEL.KEYPOINT_ON", True), "MODEL.KEYPOINT_ON is True, but INPUT.DATASET_MAPPER_NAME"),
        (("MODEL.ROI_HEADS.NAME", "Heads"), "MODEL.ROI_HEADS.NAME is 'Heads'; expected one of "),
        (("INPUT.MASK_FORMAT", "rle"), "INPUT.MASK_FORMAT is 'rle'; expected polygon or bitmask"),
        (("INPUT.DATASET_MAPPER_NAME", "mask_former_instance"), "GeneralizedRCNN takes detection;"),
        (
            ("DATASETS.TEST", "('shapes_panoptic_val',)"),
            "NUM_CLASSES is 1; data set shapes_panoptic_val has 4 classes of things; set the key",
        ),
    ],
)
def test_mistakes_are_one_line(config: str, words: tuple[object, ...], message: str) -> None:
    with pytest.raises(UserError) as caught:
        main(arguments("--config-file", config, "SOLVER.MAX_ITER", 1, *words))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_random_numbers_are_not_frozen(config: str) -> None:
    def adapted(*words: str) -> tuple[list[str], int, str]:
        cfg = load_config(config, words)
        notes = task_of(cfg).adapt(cfg)
        return notes, cfg.MODEL.BACKBONE.FREEZE_AT, cfg.MODEL.RESNETS.NORM

    frozen = ("MODEL.BACKBONE.FREEZE_AT", "2", "MODEL.RESNETS.NORM", "FrozenBN")
    [note], *found = adapted(*frozen)
    assert found == [0, "BN"]
    assert "FREEZE_AT 2" in note
    assert "FrozenBN" in note
    assert adapted(*frozen, "MODEL.WEIGHTS", "some.pth") == ([], 2, "FrozenBN")
    assert adapted("MODEL.BACKBONE.FREEZE_AT", "0", "MODEL.RESNETS.NORM", "GN") == ([], 0, "GN")


def test_compiled_parts_are_the_models(config: str) -> None:
    cfg = load_config(config, ["MODEL.DEVICE", "cpu"])
    model = build_model(cfg)
    networks = task_of(cfg).networks(model)
    assert networks == [model.backbone, model.proposal_generator.rpn_head]
