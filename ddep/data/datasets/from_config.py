"""Checks the data sets that a config names, before any long work starts."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog

from ddep.data.datasets.catalog import dataset_root
from ddep.data.datasets.custom import (
    check_custom_files,
    check_custom_labels,
    register_custom_sets,
)
from ddep.data.datasets.custom_entries import custom_entry
from ddep.data.datasets.image_folder import PREFIX, check_image_folder, register_image_folder
from ddep.errors import UserError

_ADE20K_INSTANCES = (
    "unpack ADEChallengeData2016 and its annotations_instance.tar, then run python "
    "datasets/prepare-ade20k.py"
)
# How to come by the data sets that datasets/README.md describes, by the pattern of their names.
_PREPARATION = {
    "camvid_*": "make it with python datasets/prepare-camvid.py SRC",
    "penn_fudan_*": "make it with python datasets/prepare-penn-fudan.py SRC",
    "shapes_*": "make it with python datasets/generate-shapes.py",
    "coco_2017_*_panoptic_with_sem_seg": "unpack COCO, then run python datasets/prepare-coco.py",
    "coco_2017_*_panoptic": "unpack COCO's images and panoptic annotations",
    "coco_2017_train": "unpack COCO's images and instance annotations",
    "coco_2017_val": "unpack COCO's images and instance annotations",
    "ade20k_sem_seg_*": "unpack ADEChallengeData2016, then run python datasets/prepare-ade20k.py",
    "ade20k_panoptic_*": _ADE20K_INSTANCES,
    "ade20k_instance_*": _ADE20K_INSTANCES,
    "ade20k_full_*": "unpack ADE20K_2021_17_01, then run python datasets/prepare-ade20k-full.py",
    "mapillary_vistas_19_*": "unpack Mapillary Vistas v1.2, then run python "
    "datasets/prepare-mapillary-vistas.py",
    "mapillary_vistas_*": "unpack Mapillary Vistas v1.2 (of v2.0, move what is in v1.2/ up)",
    "cityscapes_fine_*": "unpack Cityscapes' leftImg8bit and gtFine, then run python "
    "datasets/prepare-cityscapes.py",
    "pascal_context_*": "unpack VOC 2010 and Pascal Context's labels, then run python "
    "datasets/prepare-pascal-context.py",
    "gta5_sem_seg_all": "unpack GTA5, then run python datasets/prepare-gta5.py",
    "gta5_*": "unpack GTA5 with its split.mat, then run python datasets/prepare-gta5.py",
    "synthia_*": "unpack SYNTHIA-RAND-CITYSCAPES, then run python datasets/prepare-synthia.py",
    "bdd100k_*": "unpack BDD100K's 10K images and segmentation labels",
}


def register_from_config(cfg: CfgNode, keys: Sequence[str] = ("TRAIN", "TEST")) -> None:
    """Register the sets of ``DATASETS.CUSTOM`` and the ``images:<folder>`` sets that ``cfg`` names,
    and check that all sets are there.

    Args:
        cfg: the config; DATASETS.TRAIN, TEST and CUSTOM are read.
        keys: whose files are needed: "TRAIN", "TEST" or both. Names are checked in both. Without
            any, not even the classes of sets in DATASETS.CUSTOM need to be known.

    Raises:
        UserError: a name that is not known, a data set whose files or folder are not there, an
            empty folder, a mistake in DATASETS.CUSTOM; with "TRAIN" among ``keys``, a config that
            names no training set.
    """
    register_custom_sets(cfg, strict=bool(keys))
    for key in ("TRAIN", "TEST"):
        for name in cfg.DATASETS[key]:
            if name.startswith(PREFIX):
                register_image_folder(name)
            elif name not in DatasetCatalog:
                own = [entry["name"] for entry in cfg.DATASETS.CUSTOM or ()]
                raise UserError(f"DATASETS.{key}: {_explain_unknown(name, own)}")
    if "TRAIN" in keys and not cfg.DATASETS.TRAIN:
        raise UserError("DATASETS.TRAIN is empty; name the data sets to train on")
    for key in keys:
        for name in cfg.DATASETS[key]:
            entry = custom_entry(name)
            if entry:
                check_custom_files(entry)
                check_custom_labels(entry)
                continue
            try:
                check_files(
                    name, instances=cfg.MODEL.MASK_FORMER.TEST.INSTANCE_ON and key == "TEST"
                )
            except UserError as error:
                raise UserError(f"DATASETS.{key}: {error}") from error


def _explain_unknown(name: str, own: Sequence[str]) -> str:
    text = f"unknown data set {name!r}"
    if os.path.isdir(name):
        return f"{text}; did you mean {PREFIX}{name}?"
    folders = f"folder of images is written {PREFIX}<folder>"
    near = difflib.get_close_matches(name, {*own, *DatasetCatalog.list()}, n=3)
    if near:
        return f"{text}; did you mean {' or '.join(near)}? A {folders}"
    others = f" and DATASETS.CUSTOM has {', '.join(own)}" if own else ""
    return f"{text}; datasets/README.md lists them{others}; a {folders}"


def check_files(name: str, instances: bool = False) -> None:
    """Raise :class:`UserError` unless the files of a data set are there, as far as they are known.

    Sets that others registered are left to their own loaders.

    Args:
        name: of a registered data set.
        instances: whether instances will be evaluated, which may need files of their own.
    """
    if name.startswith(PREFIX):
        check_image_folder(name)
        return
    entry = custom_entry(name)
    if entry:
        check_custom_files(entry)
        return
    how = next((how for glob, how in _PREPARATION.items() if fnmatchcase(name, glob)), None)
    if how is None:
        return
    for path in _files(name, instances):
        if not path.exists():
            raise UserError(
                f"data set {name}: {path} does not exist; {how}, see datasets/README.md "
                f"($DETECTRON2_DATASETS is {dataset_root()})"
            )
    if name.startswith("cityscapes_fine_sem_seg_"):
        labels = Path(MetadataCatalog.get(name).gt_dir)
        if next(labels.glob("*/*_labelTrainIds.png"), None) is None:
            raise UserError(
                f"data set {name}: no */*_labelTrainIds.png in {labels}; make them with python "
                f"datasets/prepare-cityscapes.py, see datasets/README.md"
            )


def _files(name: str, instances: bool) -> Iterator[Path]:
    metadata = MetadataCatalog.get(name)
    attributes = ["image_root", "image_dir", "gt_dir"]
    attributes += ["panoptic_json", "panoptic_root", "sem_seg_root", "names_file"]
    if instances or metadata.evaluator_type in ("coco", "cityscapes_instance"):
        attributes.append("json_file")
    for attribute in attributes:
        if attribute in metadata.as_dict():
            yield Path(metadata.get(attribute))
