"""The data set's classes that a model depends on: how many there are, and which are things."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog

from ddep.config import get_key
from ddep.errors import UserError


def _data_set_name(cfg: CfgNode) -> str | None:
    """The data set whose classes the model predicts: the first for training, else for testing."""
    return next(iter([*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST]), None)


def check_num_classes(
    cfg: CfgNode,
    key: str = "MODEL.SEM_SEG_HEAD.NUM_CLASSES",
    kinds: Sequence[str] = ("stuff_classes", "thing_classes"),
) -> None:
    """Compare a model's number of classes with the data set's, if it has any.

    A panoptic data set may list only its things as ``thing_classes``: either count is accepted.

    Args:
        cfg: the whole config.
        key: the key of the model's number of classes.
        kinds: the metadata that may list the data set's classes.

    Raises:
        UserError: the numbers differ.
    """
    name = _data_set_name(cfg)
    if name is None:
        return
    metadata = MetadataCatalog.get(name)
    known = {kind: len(metadata.get(kind) or ()) for kind in kinds}
    known = {kind: count for kind, count in known.items() if count}
    found = get_key(cfg, key)
    if known and found not in known.values():
        expected = " or ".join(f"{count} ({kind})" for kind, count in known.items())
        raise UserError(
            f"{key} is {found}; data set {name} has {expected} classes; "
            "set the key to that, or choose another data set"
        )


def check_label_kind(cfg: CfgNode) -> None:
    """Check that a single-label classifier is not trained on a multi-label data set.

    Raises:
        UserError: it would be.
    """
    name = _data_set_name(cfg)
    if name is None or cfg.MODEL.CLASSIFIER.MULTI_LABEL:
        return
    if MetadataCatalog.get(name).get("multi_label", False):
        raise UserError(
            f"MODEL.CLASSIFIER.MULTI_LABEL is False, but images of data set {name} have any number "
            "of classes; set the key to True, or choose another data set"
        )


def find_thing_ids(
    cfg: CfgNode, key: str = "MODEL.MASK_FORMER.TEST.PANOPTIC_ON"
) -> Collection[int]:
    """The classes that are things, if the model gives panoptic results; else none.

    Args:
        cfg: the whole config.
        key: the key that says whether it does.

    Raises:
        UserError: the data set does not say which classes are things.
    """
    if not get_key(cfg, key):
        return ()
    name = _data_set_name(cfg)
    ids = MetadataCatalog.get(name).get("thing_dataset_id_to_contiguous_id") if name else None
    if ids is None:
        raise UserError(
            f"{key} is True, but data set {name} does not say which "
            "classes are things; expected a panoptic data set first in DATASETS.TRAIN (or in "
            "DATASETS.TEST where TRAIN is empty)"
        )
    return ids.values()
