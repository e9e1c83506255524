from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from detectron2.config import CfgNode, get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog

from ddep.config import add_ddep_config
from ddep.data.datasets import register_from_config
from ddep.data.datasets.catalog import register
from ddep.data.datasets.declaration import DatasetDeclaration, declare
from ddep.data.datasets.gta5 import prepare_gta5
from ddep.data.datasets.shapes import generate_shapes
from ddep.errors import UserError
from tests.data.datasets.imitation_streets import write_gta5

BUILT_IN = [
    *(f"camvid_{task}_{s}" for task in ("sem_seg", "panoptic") for s in ("train", "val", "test")),
    *(f"penn_fudan_{task}_{s}" for task in ("instance", "panoptic") for s in ("train", "val")),
    "shapes_panoptic_train",
    "shapes_panoptic_val",
    # detectron2's own, under the names that datasets/README.md gives
    *(f"coco_2017_{s}{kind}" for s in ("train", "val") for kind in ("", "_panoptic")),
    "coco_2017_train_panoptic_with_sem_seg",
    "coco_2017_val_panoptic_with_sem_seg",
    *(
        f"cityscapes_fine_{task}_{s}"
        for task in ("sem_seg", "panoptic", "instance_seg")
        for s in ("train", "val")
    ),
    *(f"ade20k_{t}_{s}" for t in ("sem_seg", "panoptic", "instance") for s in ("train", "val")),
    "ade20k_full_sem_seg_train",
    "ade20k_full_sem_seg_val",
    *(f"mapillary_vistas_{t}_{s}" for t in ("sem_seg", "panoptic") for s in ("train", "val")),
    "mapillary_vistas_19_sem_seg_train",
    "mapillary_vistas_19_sem_seg_val",
    *(f"pascal_context_{n}_sem_seg_{s}" for n in (59, 60) for s in ("train", "val")),
    *(f"gta5_sem_seg_{s}" for s in ("all", "train", "val", "test")),
    "synthia_sem_seg_all",
    "bdd100k_sem_seg_train",
    "bdd100k_sem_seg_val",
]


def config(train: Sequence[str] = (), test: Sequence[str] = ()) -> CfgNode:
    cfg = get_cfg()
    add_ddep_config(cfg)
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = tuple(train), tuple(test)
    return cfg


def message(cfg: CfgNode, keys: Sequence[str] = ("TRAIN", "TEST"), **options: bool) -> str:
    with pytest.raises(UserError) as caught:
        register_from_config(cfg, keys, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_built_in_sets_are_registered(root: Path) -> None:
    missing = [name for name in BUILT_IN if name not in DatasetCatalog]
    assert missing == []


def test_existing_sets_pass(root: Path) -> None:
    generate_shapes(root / "shapes", train=1, val=1, unlabelled=1, size=32)
    register_from_config(
        config(["images:shapes/unlabelled", "shapes_panoptic_train"], ["shapes_panoptic_val"])
    )
    assert len(DatasetCatalog.get("images:shapes/unlabelled")) == 1
    # An image folder may be registered more than once.
    register_from_config(config(["images:shapes/unlabelled"]))


def test_unknown_names(root: Path) -> None:
    found = message(config(["camvid_semseg_train"]))
    assert found.startswith("DATASETS.TRAIN: unknown data set 'camvid_semseg_train'; did you mean ")
    assert "camvid_sem_seg_train" in found
    found = message(config([], ["/data/photographs"]), keys=())
    assert found.startswith("DATASETS.TEST: unknown data set '/data/photographs'; datasets/README")
    assert found.endswith("lists them; a folder of images is written images:<folder>")
    (root / "photographs").mkdir()
    found = message(config([str(root / "photographs")]))
    assert found.endswith(f"; did you mean images:{root}/photographs?")
    (root / "walk.mp4").touch()
    found = message(config([str(root / "walk.mp4")]))
    assert found.endswith(f"; did you mean images:{root}/walk.mp4?")


@pytest.mark.parametrize(
    ("name", "path", "script"),
    [
        ("camvid_sem_seg_train", "camvid/train", "datasets/prepare.py camvid"),
        ("camvid_panoptic_val", "camvid/val", "datasets/prepare.py camvid"),
        ("penn_fudan_instance_val", "penn_fudan/PNGImages", "datasets/prepare.py penn_fudan"),
        ("shapes_panoptic_val", "shapes/val", "datasets/prepare.py shapes"),
        ("coco_2017_val_panoptic_with_sem_seg", "coco/val2017", "datasets/prepare.py coco"),
        ("coco_2017_train_panoptic", "coco/train2017", "COCO"),
        ("ade20k_sem_seg_train", "ADEChallengeData2016/images", "datasets/prepare.py ade20k"),
        ("ade20k_panoptic_val", "ADEChallengeData2016/images", "annotations_instance.tar"),
        ("ade20k_instance_train", "ADEChallengeData2016/images", "datasets/prepare.py ade20k"),
        (
            "ade20k_full_sem_seg_val",
            "ADE20K_2021_17_01/images_detectron2/validation",
            "datasets/prepare.py ade20k_full",
        ),
        ("mapillary_vistas_sem_seg_train", "mapillary_vistas/training/images", "v1.2"),
        ("mapillary_vistas_panoptic_val", "mapillary_vistas/validation/images", "v1.2"),
        (
            "mapillary_vistas_19_sem_seg_val",
            "mapillary_vistas/validation/images",
            "datasets/prepare.py mapillary_vistas",
        ),
        (
            "pascal_context_59_sem_seg_train",
            "VOCdevkit/VOC2010/JPEGImages",
            "datasets/prepare.py pascal_context",
        ),
        ("gta5_sem_seg_all", "gta5/images", "datasets/prepare.py gta5"),
        ("gta5_sem_seg_val", "gta5/images", "split.mat"),
        ("synthia_sem_seg_all", "RAND_CITYSCAPES/RGB", "datasets/prepare.py synthia"),
        ("bdd100k_sem_seg_val", "bdd100k/images/10k/val", "10K images"),
        ("cityscapes_fine_sem_seg_val", "cityscapes/leftImg8bit", "datasets/prepare.py cityscapes"),
        (
            "cityscapes_fine_panoptic_val",
            "cityscapes/leftImg8bit",
            "datasets/prepare.py cityscapes",
        ),
        (
            "cityscapes_fine_instance_seg_val",
            "cityscapes/leftImg8bit/val",
            "leftImg8bit and gtFine",
        ),
    ],
)
def test_missing_files_name_the_path_and_the_remedy(
    root: Path, name: str, path: str, script: str
) -> None:
    for key, cfg in (("TRAIN", config([name])), ("TEST", config(["images:x"], [name]))):
        (root / "x").mkdir(exist_ok=True)
        (root / "x" / "1.png").touch()
        found = message(cfg)
        assert found.startswith(f"DATASETS.{key}: data set {name}: ")
        assert path in found
        assert script in found
        assert "does not exist" in found
        assert str(root) in found or name.startswith(
            ("coco_2017_train_p", "cityscapes_fine_sem", "cityscapes_fine_pan")
        )


def test_an_interrupted_preparation_is_noticed(root: Path) -> None:
    generate_shapes(root / "shapes", train=1, val=1, unlabelled=1, size=32)
    (root / "shapes" / "panoptic_val.json").unlink()
    assert "panoptic_val.json does not exist" in message(config(["shapes_panoptic_val"]))


def test_the_list_of_names_is_written_last(root: Path) -> None:
    prepare_gta5(write_gta5(root), workers=1)
    register_from_config(config(["gta5_sem_seg_all"], ["gta5_sem_seg_val"]))
    (root / "gta5" / "val.txt").unlink()
    found = message(config(["gta5_sem_seg_all"], ["gta5_sem_seg_val"]))
    assert found.startswith("DATASETS.TEST: data set gta5_sem_seg_val: ")
    assert "gta5/val.txt does not exist; unpack GTA5 with its split.mat, then run" in found


def test_image_folders_are_checked(root: Path) -> None:
    (root / "bare").mkdir()
    found = message(config(["images:nowhere"]))
    assert found.startswith("DATASETS.TRAIN: data set images:nowhere: there is no such folder;")
    found = message(config(["images:bare"]))
    assert found.startswith(f"DATASETS.TRAIN: no images in {root}/bare or the folders in it;")
    (root / "full").mkdir()
    (root / "full" / "1.jpg").touch()
    found = message(config(["images:full"], ["images:bare"]))
    assert found.startswith(f"DATASETS.TEST: no images in {root}/bare or the folders in it;")


def test_only_what_is_needed_is_checked(root: Path) -> None:
    generate_shapes(root / "shapes", train=1, val=1, unlabelled=1, size=32)
    cfg = config(["images:nowhere", "camvid_sem_seg_train"], ["shapes_panoptic_val"])
    register_from_config(cfg, keys=("TEST",))
    assert "images:nowhere" in DatasetCatalog
    assert "DATASETS.TRAIN: data set images:nowhere: there is no such folder" in message(cfg)
    assert "DATASETS.TRAIN is empty" in message(config([], ["shapes_panoptic_val"]))
    register_from_config(config([], ["shapes_panoptic_val"]), keys=("TEST",))


def test_cityscapes_needs_its_train_ids(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "cityscapes_fine_sem_seg_val"
    images, labels = tmp_path / "images", tmp_path / "labels"
    images.mkdir()
    (labels / "bonn").mkdir(parents=True)
    metadata = MetadataCatalog.get(name)
    for attribute, value in (("image_dir", images), ("gt_dir", labels)):
        monkeypatch.setitem(metadata.__dict__, attribute, str(value))
    found = message(config([name]))
    assert "no */*_labelTrainIds.png" in found
    assert "datasets/prepare.py cityscapes" in found
    (labels / "bonn" / "bonn_0_gtFine_labelTrainIds.png").touch()
    register_from_config(config([name]))


def test_instance_evaluation_needs_the_instance_annotations(root: Path) -> None:
    name = "coco_2017_val_panoptic_with_sem_seg"
    for folder in ("val2017", "panoptic_val2017", "panoptic_semseg_val2017", "annotations"):
        (root / "coco" / folder).mkdir(parents=True)
    (root / "coco" / "annotations" / "panoptic_val2017.json").touch()
    cfg = config([], [name])
    register_from_config(cfg, keys=("TEST",))
    assert "instances_val2017.json does not exist" in message(cfg, ("TEST",), instances=True)


def test_sets_without_a_declaration_are_left_to_their_loaders(
    root: Path, own_declarations: None
) -> None:
    files = {"image_root": "/nowhere", "required_files": ("image_root",)}
    register("microscopy", lambda: [{"file_name": "a"}], **files)
    cfg = config(["microscopy"], ["microscopy"])
    register_from_config(cfg)
    assert DatasetCatalog.get("microscopy") == [{"file_name": "a"}]
    declare(DatasetDeclaration("pictures", {"micro*": "take some"}, register=lambda root: None))
    assert "microscopy: /nowhere does not exist; take some, see" in message(cfg)
