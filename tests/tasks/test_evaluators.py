"""Which evaluators a task chooses for a data set, and where their results go."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import DatasetEvaluators

from ddep.config import add_ddep_config
from ddep.errors import UserError
from ddep.evaluation import output_folder
from ddep.evaluation.cityscapes_instance import CityscapesAPEvaluator
from ddep.evaluation.denoising import DenoisingEvaluator
from ddep.evaluation.instance import MaskAPEvaluator
from ddep.evaluation.panoptic import PanopticQualityEvaluator
from ddep.evaluation.pictures import PredictionPictures
from ddep.evaluation.semantic import CheckedSemSegEvaluator, compare_classes
from ddep.tasks import task_of

NAME = "test_build_evaluator"
PANOPTIC, SEMANTIC, INSTANCE = PanopticQualityEvaluator, CheckedSemSegEvaluator, MaskAPEvaluator
CITYSCAPES_INSTANCE = CityscapesAPEvaluator


@pytest.fixture
def cfg(tmp_path):
    cfg = get_cfg()
    add_ddep_config(cfg)
    cfg.OUTPUT_DIR = str(tmp_path / "output")
    cfg.MODEL.META_ARCHITECTURE = "MaskFormer"
    cfg.DATASETS.TEST = (NAME,)
    cfg.MODEL.MASK_FORMER.TEST.PANOPTIC_ON = True
    cfg.MODEL.MASK_FORMER.TEST.INSTANCE_ON = True
    return cfg


@pytest.fixture
def register(tmp_path):
    """Register the data set with all ground truth except what ``without`` names."""

    def register(evaluator_type, without=()):
        record = {"file_name": "a.jpg", "image_id": 1, "sem_seg_file_name": "a.png"}
        category = {"id": 1, "name": "thing", "isthing": 1}
        truth = {
            "images": [{"id": 1, "height": 4, "width": 4}],
            "categories": [category],
            "annotations": [{"image_id": 1, "file_name": "a.png", "segments_info": []}],
        }
        panoptic_json, json_file = tmp_path / "panoptic.json", tmp_path / "instances.json"
        panoptic_json.write_text(json.dumps(truth))
        json_file.write_text(json.dumps({**truth, "annotations": []}))
        metadata = {
            "evaluator_type": evaluator_type,
            "stuff_classes": ["thing"],
            "ignore_label": 255,
            "thing_dataset_id_to_contiguous_id": {1: 0},
            "stuff_dataset_id_to_contiguous_id": {1: 0},
            "panoptic_root": str(tmp_path),
            "panoptic_json": str(panoptic_json),
            "json_file": str(json_file),
            "gt_dir": str(tmp_path),
        }
        record = {k: v for k, v in record.items() if k not in without}
        DatasetCatalog.register(NAME, lambda: [record])
        MetadataCatalog.get(NAME).set(**{k: v for k, v in metadata.items() if k not in without})

    yield register
    DatasetCatalog.pop(NAME, None)
    MetadataCatalog.pop(NAME, None)


def build_evaluator(cfg, name=NAME):
    return task_of(cfg).build_evaluator(cfg, name, cfg.OUTPUT_DIR)


def kinds(evaluator) -> list[type]:
    assert isinstance(evaluator, DatasetEvaluators)
    *measuring, pictures = map(type, evaluator._evaluators)
    assert pictures is PredictionPictures
    return measuring


def measures_on(cfg, name=NAME) -> list[str]:
    measures = task_of(cfg).measures_on(cfg, name)
    for measure in measures:
        measure.check(name)
    return [measure.name for measure in measures]


PANOPTIC_TYPES = (
    "panoptic_seg",
    "coco_panoptic_seg",
    "ade20k_panoptic_seg",
    "mapillary_vistas_panoptic_seg",
)


@pytest.mark.parametrize(
    ("evaluator_type", "expected"),
    [
        ("sem_seg", [SEMANTIC]),
        ("cityscapes_sem_seg", [SEMANTIC]),
        ("coco", [INSTANCE]),
        ("cityscapes_instance", [CITYSCAPES_INSTANCE]),
        ("cityscapes_panoptic_seg", [PANOPTIC, SEMANTIC, CITYSCAPES_INSTANCE]),
        *((name, [PANOPTIC, SEMANTIC, INSTANCE]) for name in PANOPTIC_TYPES),
    ],
)
def test_evaluators_of_a_data_set(cfg, register, evaluator_type, expected):
    register(evaluator_type)
    assert kinds(build_evaluator(cfg)) == expected


@pytest.mark.parametrize(
    ("switch", "expected"),
    [
        ("PANOPTIC", [SEMANTIC, INSTANCE]),
        ("SEMANTIC", [PANOPTIC, INSTANCE]),
        ("INSTANCE", [PANOPTIC, SEMANTIC]),
    ],
)
def test_what_the_model_does_not_predict_is_left_out(cfg, register, switch, expected):
    register("panoptic_seg")
    cfg.MODEL.MASK_FORMER.TEST[f"{switch}_ON"] = False
    assert kinds(build_evaluator(cfg)) == expected


@pytest.mark.parametrize(
    ("missing", "expected"),
    [("sem_seg_file_name", [PANOPTIC, INSTANCE]), ("json_file", [PANOPTIC, SEMANTIC])],
)
def test_what_has_no_ground_truth_is_left_out(cfg, register, missing, expected):
    register("panoptic_seg", without=[missing])
    assert kinds(build_evaluator(cfg)) == expected


def test_cityscapes_instances_need_no_json_file(cfg, register):
    register("cityscapes_panoptic_seg", without=["json_file"])
    assert kinds(build_evaluator(cfg)) == [PANOPTIC, SEMANTIC, CITYSCAPES_INSTANCE]


def test_denoising_models_need_no_labels(cfg):
    cfg.MODEL.META_ARCHITECTURE = "DenoisingPretrainer"
    cfg.INPUT.FORMAT = "BGR"
    cfg.MODEL.DDEP.NOISE = "additive"
    evaluator = build_evaluator(cfg, "images:some/folder")
    assert isinstance(evaluator, DenoisingEvaluator)
    assert evaluator._image_format == "BGR"
    assert evaluator._formulation == "additive"
    assert evaluator._std.flatten().tolist() == cfg.MODEL.PIXEL_STD


def test_output_folder(cfg):
    """Several data sets do not write over each other's results."""
    inference = f"{cfg.OUTPUT_DIR}/inference"
    assert output_folder(cfg, NAME) == inference
    cfg.DATASETS.TEST = (NAME, "images:/some/folder")
    assert [output_folder(cfg, name) for name in cfg.DATASETS.TEST] == [
        f"{inference}/{NAME}",
        f"{inference}/images_some_folder",
    ]


@pytest.mark.parametrize("evaluator_type", ["lvis", None])
def test_no_evaluator(cfg, register, evaluator_type):
    register(evaluator_type)
    message = f"nothing to evaluate on data set {NAME}: it is labelled for nothing, and MaskFormer"
    with pytest.raises(UserError, match=message):
        build_evaluator(cfg)


def test_nothing_switched_on(cfg, register):
    register("sem_seg")
    cfg.MODEL.MASK_FORMER.TEST.SEMANTIC_ON = False
    with pytest.raises(UserError, match=r"sem_seg\): MODEL.MASK_FORMER.TEST.SEMANTIC_ON must be"):
        build_evaluator(cfg)


def test_a_check_tells_what_will_be_evaluated(cfg, register):
    register("panoptic_seg", without=["json_file"])
    assert measures_on(cfg) == ["panoptic_seg", "sem_seg"]
    cfg.MODEL.META_ARCHITECTURE = "DenoisingPretrainer"
    assert measures_on(cfg, "images:some/folder") == ["denoising"]


def test_classes_are_compared_with_the_models(register):
    register("panoptic_seg")
    trained_on, key = "test_trained_on", "MODEL.SEM_SEG_HEAD.NUM_CLASSES"
    MetadataCatalog.get(trained_on).set(stuff_classes=["thing"])
    assert compare_classes(NAME, 1, key, trained_on) == []
    MetadataCatalog.pop(trained_on)
    MetadataCatalog.get(trained_on).set(stuff_classes=["cat"])
    [note] = compare_classes(NAME, 1, key, trained_on)
    assert note.startswith(f"class 0 is cat in test_trained_on and thing in {NAME}: ")
    MetadataCatalog.pop(trained_on)
    assert compare_classes(NAME, 1, key, None) == []
    [note] = compare_classes(NAME, 0, key, None)
    assert note.endswith("those from thing on are never predicted")
    with pytest.raises(UserError, match=f"{NAME}, which has 1 classes, but .*NUM_CLASSES is 2"):
        compare_classes(NAME, 2, key, None)


@pytest.mark.parametrize("attribute", ["ignore_label", "stuff_classes"])
def test_missing_metadata_is_named(cfg, register, attribute):
    register("sem_seg", without=[attribute])
    with pytest.raises(UserError, match=f"data set {NAME} has no {attribute} in its metadata"):
        measures_on(cfg)
    with pytest.raises(UserError, match=f"data set {NAME} has no {attribute} in its metadata"):
        CheckedSemSegEvaluator(NAME)


@pytest.mark.parametrize(
    ("load", "message"),
    [
        (Path("absent.json").read_text, r"absent\.json"),
        (lambda: {}["categories"], "categories"),
        (lambda: json.loads("{"), "Expecting property name"),
    ],
)
@pytest.mark.parametrize(
    ("metadata", "found"),
    [
        ({"evaluator_type": "coco_panoptic_seg"}, "cannot be read"),
        ({"labelled_for": ("panoptic_seg",)}, "cannot be loaded"),
    ],
)
def test_a_data_set_that_cannot_be_read_is_named(cfg, load, message, metadata, found):
    DatasetCatalog.register(NAME, load)
    MetadataCatalog.get(NAME).set(**metadata)
    try:
        with pytest.raises(UserError, match=rf"data set {NAME} {found}: .*{message}"):
            measures_on(cfg)
    finally:
        DatasetCatalog.pop(NAME)
        MetadataCatalog.pop(NAME)
