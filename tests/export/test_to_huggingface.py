"""Models trained here give the same predictions in Hugging Face's transformers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForUniversalSegmentation

from ddep.data.datasets import dataset_root, register_all
from ddep.data.datasets.shapes import CATEGORIES, generate_shapes
from ddep.engine import main
from ddep.errors import UserError
from ddep.export import convert_file, export_to_hugging_face
from ddep.inference import Predictor
from ddep.tasks import load_config
from tests.engine.tiny_runs import (
    arguments,
    denoising_config,
    one_thread,  # noqa: F401
    write_config,
)

pytestmark = pytest.mark.slow

SIDE = 384  # Hugging Face resizes all masks to this


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with generated shapes in ``datasets``, which is $DETECTRON2_DATASETS."""
    folder = tmp_path_factory.mktemp("export")
    usual = dataset_root()
    generate_shapes(folder / "datasets" / "shapes", train=2, val=1, unlabelled=2, size=SIDE)
    register_all(folder / "datasets")
    yield folder
    register_all(usual)


@pytest.fixture(scope="module")
def pretrained(folder: Path) -> Path:
    """The folder of a denoising run."""
    config = denoising_config(folder, folder / "datasets" / "shapes" / "unlabelled")
    words = ["SOLVER.MAX_ITER", 2, "DATASETS.TEST", "()", "MODEL.DDEP.MULTI_SCALE", True]
    main(arguments("--config-file", config, *words))
    return folder / "pretrain"


@pytest.fixture(scope="module")
def fine_tuned(folder: Path, pretrained: Path) -> Path:
    """The folder of a panoptic run from the converted checkpoint of ``pretrained``."""
    slim = folder / "slim.pth"
    convert_file(str(pretrained / "model_final.pth"), str(slim))
    config = write_config(
        folder,
        "fine_tuning",
        MODEL__META_ARCHITECTURE="MaskFormer",
        MODEL__WEIGHTS=str(slim),
        MODEL__SEM_SEG_HEAD={"NUM_CLASSES": len(CATEGORIES)},
        MODEL__MASK_FORMER={"TEST": {"PANOPTIC_ON": True}, "DEC_LAYERS": 4},
        DATASETS__TRAIN=["shapes_panoptic_train"],
        DATASETS__TEST=["shapes_panoptic_val"],
        INPUT__DATASET_MAPPER_NAME="mask_former_panoptic",
        INPUT__MIN_SIZE_TEST=SIDE,
        SOLVER__MAX_ITER=3,
        OUTPUT_DIR=str(folder / "fine_tuned"),
    )
    assert "PQ" in main(arguments("--config-file", config))["panoptic_seg"]
    return folder / "fine_tuned"


def test_pretrain_convert_fine_tune_export_and_predict(folder: Path, fine_tuned: Path) -> None:
    """Hugging Face's prediction for an image equals ours."""
    checkpoint = fine_tuned / "model_final.pth"
    export_to_hugging_face(str(checkpoint), str(folder / "exported"))

    cfg = load_config(str(fine_tuned / "config.yaml"))
    cfg.MODEL.WEIGHTS, cfg.MODEL.DEVICE = str(checkpoint), "cpu"
    predictor = Predictor(cfg)
    head_outputs: list[dict[str, Any]] = []
    predictor.model.sem_seg_head.register_forward_hook(lambda *c: head_outputs.append(c[-1]))
    image = folder / "datasets" / "shapes" / "val" / "00000.png"
    prediction = predictor(image).outputs

    processor = AutoImageProcessor.from_pretrained(folder / "exported")
    model = AutoModelForUniversalSegmentation.from_pretrained(folder / "exported").eval()
    with torch.no_grad():
        outputs = model(**processor(Image.open(image).convert("RGB"), return_tensors="pt"))
    for ours, theirs in (
        ("pred_logits", outputs.class_queries_logits),
        ("pred_masks", outputs.masks_queries_logits),
    ):
        assert theirs.std() > 0.1
        torch.testing.assert_close(head_outputs[0][ours], theirs, rtol=0, atol=1e-4)

    [expected] = processor.post_process_semantic_segmentation(
        outputs, target_sizes=[(SIDE, SIDE)], return_segmentation_scores=True
    )
    found = prediction["sem_seg"]
    torch.testing.assert_close(found, expected.segmentation_scores, rtol=0, atol=1e-4)
    first, second = found.topk(2, dim=0).values
    clear = first - second > 1e-4  # where rounding does not decide
    assert clear.float().mean() > 0.9
    assert torch.equal(found.argmax(0)[clear], expected.segmentation[clear])
    names = [category["name"] for category in CATEGORIES]
    assert model.config.id2label == dict(enumerate(names))


def test_dropped_weights_are_reported(
    folder: Path, fine_tuned: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = torch.load(fine_tuned / "model_final.pth", weights_only=True)
    checkpoint["model"]["denoising_head.conv.weight"] = torch.ones(1)
    torch.save(checkpoint, folder / "more.pth")
    config = str(fine_tuned / "config.yaml")
    exported = folder / "without_names"
    text = Path(config).read_text().replace("shapes_panoptic_", "camvid_panoptic_")
    (folder / "other.yaml").write_text(text)
    with pytest.raises(UserError, match="NUM_CLASSES is 8; data set camvid_panoptic_train has"):
        export_to_hugging_face(
            str(folder / "more.pth"), str(exported), config_file=str(folder / "other.yaml")
        )
    export_to_hugging_face(str(folder / "more.pth"), str(exported), config_file=config)
    output = capsys.readouterr().out
    assert "dropped 1 weights that the model does not have: denoising_head.conv.weight" in output
    assert "weights of Mask2FormerForUniversalSegmentation" in output


def test_pretraining_is_no_segmentation_model(folder: Path, pretrained: Path) -> None:
    with pytest.raises(UserError, match=r"config\.yaml is for denoising, which Hugging Face's"):
        export_to_hugging_face(str(pretrained / "model_final.pth"), str(folder / "no"))
    assert not (folder / "no").exists()


def test_a_checkpoint_without_predictor(folder: Path, pretrained: Path, fine_tuned: Path) -> None:
    with pytest.raises(
        UserError, match=r"model_final\.pth lacks \d+ weights .* sem_seg_head.predictor"
    ):
        export_to_hugging_face(
            str(pretrained / "model_final.pth"),
            str(folder / "no"),
            config_file=str(fine_tuned / "config.yaml"),
        )
    assert not (folder / "no").exists()


def test_a_model_of_another_kind_is_refused_before_its_weights_are_read(tmp_path: Path) -> None:
    config = write_config(
        tmp_path,
        "timm",
        MODEL__META_ARCHITECTURE="MaskFormer",
        MODEL__BACKBONE={"NAME": "TimmBackbone"},
    )
    with pytest.raises(UserError, match=r"BACKBONE\.NAME is 'TimmBackbone'; Hugging Face's"):
        export_to_hugging_face("absent.pth", str(tmp_path / "out"), config_file=config)


def test_no_config(tmp_path: Path) -> None:
    torch.save({"weight": torch.ones(1)}, tmp_path / "model.pth")
    with pytest.raises(UserError, match=r"there is no .*config\.yaml; name it with --config-file"):
        export_to_hugging_face(str(tmp_path / "model.pth"), str(tmp_path / "out"))


def test_classes_of_unknown_data_have_numbers(
    folder: Path, fine_tuned: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (fine_tuned / "config.yaml").read_text()
    for name in ("- shapes_panoptic_train", "- shapes_panoptic_val"):
        text = text.replace(name, "[]")
    text = text.replace("TRAIN:\n  []", "TRAIN: []").replace("TEST:\n  []", "TEST: []")
    text = text.replace("PANOPTIC_ON: true", "PANOPTIC_ON: false")
    (folder / "nameless.yaml").write_text(text)
    export_to_hugging_face(
        str(fine_tuned / "model_final.pth"),
        str(folder / "nameless"),
        config_file=str(folder / "nameless.yaml"),
    )
    assert "the classes have no names" in capsys.readouterr().out
    config = json.loads((folder / "nameless" / "config.json").read_text())
    assert config["id2label"]["7"] == "LABEL_7"
