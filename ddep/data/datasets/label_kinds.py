"""What data sets are labelled for, in words that mappers, models and evaluators share.

The words are those of detectron2's evaluators: "panoptic_seg", "sem_seg", "bbox" (boxes), "segm"
(masks of objects), and "classification"; besides "video_segm" (masks of objects through videos) and
"tracking" (their identities).
"""

from __future__ import annotations

from detectron2.data import DatasetCatalog, MetadataCatalog

from ddep.errors import UserError, one_line

SEMANTIC = ("sem_seg",)
INSTANCE = ("bbox", "segm")
CLASSIFICATION = ("classification",)
VIDEO = ("video_segm",)
TRACKING = ("tracking",)
# What detectron2's ``evaluator_type`` means, for data sets without ``labelled_for``. It does not
# say which other labels panoptic sets have.
_LABELS_OF_TYPE = {
    "sem_seg": SEMANTIC,
    "cityscapes_sem_seg": SEMANTIC,
    "cityscapes_instance": INSTANCE,
    "coco": INSTANCE,
    "ytvis": VIDEO,
}
_PANOPTIC_TYPES = (
    "panoptic_seg",
    "coco_panoptic_seg",
    "ade20k_panoptic_seg",
    "cityscapes_panoptic_seg",
    "mapillary_vistas_panoptic_seg",
)


def labelled_for(name: str) -> tuple[str, ...]:
    """What a registered data set has labels for.

    That is its metadata ``labelled_for``, or else what detectron2's ``evaluator_type`` means. For a
    panoptic set without ``labelled_for``, the records are loaded to see whether they have semantic
    labels. Empty if there are no labels, or none that are known.

    Raises:
        UserError: the records cannot be loaded.
    """
    metadata = MetadataCatalog.get(name)
    labels = metadata.get("labelled_for")
    if labels is not None:
        return tuple(labels)
    evaluator_type = metadata.get("evaluator_type")
    if evaluator_type not in _PANOPTIC_TYPES:
        return _LABELS_OF_TYPE.get(evaluator_type, ())
    objects = "gt_dir" if evaluator_type.startswith("cityscapes_") else "json_file"
    return panoptic_labels(
        semantic=_has_semantic_labels(name), instances=metadata.get(objects) is not None
    )


def panoptic_labels(semantic: bool, instances: bool) -> tuple[str, ...]:
    """What a panoptic data set has labels for, given whether further files hold semantic labels and
    instance annotations."""
    return ("panoptic_seg", *(SEMANTIC if semantic else ()), *(INSTANCE if instances else ()))


def may_be_labelled_for(name: str, label: str) -> bool:
    """Whether a registered data set has labels of a kind; True if its metadata do not say.

    Unlike :func:`labelled_for`, this never loads records.
    """
    metadata = MetadataCatalog.get(name)
    labels = metadata.get("labelled_for")
    if labels is None:
        labels = _LABELS_OF_TYPE.get(metadata.get("evaluator_type"))
    return labels is None or label in labels


def _has_semantic_labels(name: str) -> bool:
    try:
        records = DatasetCatalog.get(name)
    except (AssertionError, KeyError, OSError, TypeError, ValueError) as error:
        raise UserError(f"data set {name} cannot be read: {one_line(error)}") from error
    return any("sem_seg_file_name" in record for record in records[:1])
