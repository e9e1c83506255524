"""Register and check the data sets that a config names, before any long work starts."""

from __future__ import annotations

import difflib
import os
from collections.abc import Sequence
from pathlib import Path

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog

from ddep.data.datasets import class_folders
from ddep.data.datasets.catalog import dataset_root
from ddep.data.datasets.custom import (
    check_custom_files,
    check_custom_labels,
    register_custom_sets,
)
from ddep.data.datasets.custom_entries import custom_entry
from ddep.data.datasets.declaration import find_declaration
from ddep.data.datasets.image_folder import PREFIX, check_image_folder, register_image_folder
from ddep.data.video_capture import is_video
from ddep.errors import UserError


def register_from_config(
    cfg: CfgNode, keys: Sequence[str] = ("TRAIN", "TEST"), *, instances: bool = False
) -> None:
    """Register the sets in ``cfg`` that are not built in, and check that all sets exist.

    These are the sets of ``DATASETS.CUSTOM``, ``images:<folder>`` and ``classes:<folder>``.

    Args:
        cfg: the config; DATASETS.TRAIN, TARGET, TEST and CUSTOM are read.
        keys: the keys whose files are needed, of "TRAIN", "TARGET" and "TEST". Names are checked in
            all of them. Without any, even the classes of sets in DATASETS.CUSTOM may be unknown.
        instances: whether instances will be evaluated, which may need further files.

    Raises:
        UserError: an unknown name, a data set whose files or folder do not exist, an empty folder,
            a mistake in DATASETS.CUSTOM; with "TRAIN" among ``keys``, a config that names no
            training set.
    """
    register_custom_sets(cfg, strict=bool(keys))
    for key in ("TRAIN", "TARGET", "TEST"):
        for name in cfg.DATASETS[key]:
            if name.startswith(PREFIX):
                register_image_folder(name)
            elif name.startswith(class_folders.PREFIX):
                class_folders.register_class_folders(name)
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
                if key != "TARGET":  # whose labels are never read
                    check_custom_labels(entry)
                continue
            try:
                check_files(name, instances=instances and key == "TEST")
            except UserError as error:
                raise UserError(f"DATASETS.{key}: {error}") from error


def _explain_unknown(name: str, own: Sequence[str]) -> str:
    text = f"unknown data set {name!r}"
    if os.path.isdir(name) or (os.path.isfile(name) and is_video(name)):
        return f"{text}; did you mean {PREFIX}{name}?"
    folders = f"folder of images is written {PREFIX}<folder>"
    near = difflib.get_close_matches(name, {*own, *DatasetCatalog.list()}, n=3)
    if near:
        return f"{text}; did you mean {' or '.join(near)}? A {folders}"
    others = f" and DATASETS.CUSTOM has {', '.join(own)}" if own else ""
    return f"{text}; datasets/README.md lists them{others}; a {folders}"


def check_files(name: str, instances: bool = False) -> None:
    """Raise :class:`UserError` if a data set's files do not exist.

    Data sets without a declaration are left to their loaders.

    Args:
        name: of a registered data set.
        instances: whether instances will be evaluated, which may need further files.
    """
    if name.startswith(PREFIX):
        check_image_folder(name)
        return
    if name.startswith(class_folders.PREFIX):
        class_folders.check_class_folders(name)
        return
    entry = custom_entry(name)
    if entry:
        check_custom_files(entry)
        return
    found = find_declaration(name)
    if found is None:
        return
    declaration, how = found
    metadata = MetadataCatalog.get(name)
    attributes = list(metadata.get("required_files", ()))
    if instances and "json_file" in metadata.as_dict():
        attributes.append("json_file")
    for path in (Path(metadata.get(attribute)) for attribute in attributes):
        if not path.exists():
            raise UserError(
                f"data set {name}: {path} does not exist; {how}, see datasets/README.md "
                f"($DETECTRON2_DATASETS is {dataset_root()})"
            )
    declaration.check_files(name)
