"""Mean IoU: detectron2's evaluator, with checks of what goes into it and means of some classes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from detectron2.data import MetadataCatalog
from detectron2.evaluation import SemSegEvaluator

from ddep.data.image_reader import read_labels
from ddep.errors import UserError


def check_metadata(dataset_name: str) -> None:
    """Raise :class:`UserError` if a data set's metadata lacks what mean IoU needs."""
    metadata = MetadataCatalog.get(dataset_name)
    for attribute in ("stuff_classes", "ignore_label"):
        if metadata.get(attribute) is None:
            raise UserError(
                f"data set {dataset_name} has no {attribute} in its metadata, which mean IoU "
                f"needs; set it with MetadataCatalog.get({dataset_name!r}).set({attribute}=...)"
            )
    for metric, names in metadata.get("class_subsets", {}).items():
        for name in names:
            if name not in metadata.stuff_classes:
                raise UserError(
                    f"data set {dataset_name}: class_subsets[{metric!r}] in its metadata has "
                    f"{name!r}, which is none of its stuff_classes"
                )


def compare_classes(
    dataset_name: str, num_classes: int, num_classes_key: str, trained_on: str | None
) -> list[str]:
    """Compare the classes of a test set with those of the model.

    Args:
        dataset_name: a registered data set.
        num_classes: of the model.
        num_classes_key: the config key that says so.
        trained_on: the training set whose classes the model has; None if it is not known.

    Returns:
        A line for what may be a mistake: fewer classes, or classes of other names.

    Raises:
        UserError: the model has more classes than the data set.
    """
    theirs = MetadataCatalog.get(dataset_name).stuff_classes
    if num_classes > len(theirs):
        raise UserError(
            f"DATASETS.TEST has {dataset_name}, which has {len(theirs)} classes, but "
            f"{num_classes_key} is {num_classes}; evaluate on data sets of the model's classes"
        )
    if num_classes < len(theirs):
        return [
            f"{dataset_name} has {len(theirs)} classes, but {num_classes_key} is {num_classes}: "
            f"those from {theirs[num_classes]} on are never predicted"
        ]
    ours = theirs
    if trained_on is not None:
        ours = MetadataCatalog.get(trained_on).get("stuff_classes", theirs)
    for index, (own, other) in enumerate(zip(ours, theirs, strict=False)):
        if own != other:
            return [
                f"class {index} is {own} in {trained_on} and {other} in {dataset_name}: unless "
                f"both names mean the same, results on {dataset_name} mean nothing"
            ]
    return []


class CheckedSemSegEvaluator(SemSegEvaluator):
    """detectron2's ``SemSegEvaluator`` for label images that may hold mistakes.

    detectron2's confusion matrix silently counts a label out of range for another prediction. The
    boundary IoU of newer versions is left out: it erodes class numbers instead of masks, so that a
    perfect prediction scores far below 100.

    ``class_subsets`` in the metadata, metric -> names of classes, adds the mean IoU of some of the
    classes, such as ``mIoU16`` and ``mIoU13`` of models trained on SYNTHIA. They come from the
    confusion matrix of all classes: to confuse a class of the subset with one outside is an error
    in both directions. Classes without any label are left out of the mean, as for ``mIoU``.
    """

    def __init__(self, dataset_name: str, output_dir: str | None = None) -> None:
        """
        Args:
            dataset_name: a registered data set with ``sem_seg_file_name`` in its dicts and
                ``stuff_classes`` and ``ignore_label`` in its metadata.
            output_dir: where predictions and results go; None writes none.

        Raises:
            UserError: see :func:`check_metadata`.
        """
        check_metadata(dataset_name)
        super().__init__(dataset_name, distributed=True, output_dir=output_dir)
        self._compute_boundary_iou = False
        metadata = MetadataCatalog.get(dataset_name)
        self._labels = len(metadata.stuff_classes)
        self._void = metadata.ignore_label
        # metric -> whether each class counts
        self._subsets = {
            metric: np.isin(metadata.stuff_classes, names)
            for metric, names in metadata.get("class_subsets", {}).items()
        }
        if self._contiguous_id_to_dataset_id is not None:
            # Some panoptic sets (Cityscapes) list only stuff there, but all classes are predicted.
            things = metadata.get("thing_dataset_id_to_contiguous_id", {})
            for dataset_id, contiguous_id in things.items():
                self._contiguous_id_to_dataset_id.setdefault(contiguous_id, dataset_id)

    def process(
        self, inputs: Sequence[Mapping[str, Any]], outputs: Sequence[Mapping[str, Any]]
    ) -> None:
        """Compare predictions with label images.

        Args:
            inputs: dicts with ``file_name``.
            outputs: dicts with ``sem_seg``, (C, H, W) scores of the classes.

        Raises:
            UserError: a label image cannot be read, has an unknown label or another size than the
                prediction; or the model predicts more classes than there are.
        """
        for image, output in zip(inputs, outputs, strict=True):
            classes, height, width = output["sem_seg"].shape
            path = self.input_file_to_gt_file[image["file_name"]]
            labels = read_labels(path)
            if labels.shape != (height, width):
                raise UserError(
                    f"{path} is {labels.shape[1]}x{labels.shape[0]}; expected {width}x{height}, as "
                    "the image"
                )
            wrong = labels[((labels < 0) | (labels >= self._labels)) & (labels != self._void)]
            if wrong.size:
                raise UserError(
                    f"{path} has the label {wrong.max()}; expected 0 to {self._labels - 1}, or "
                    f"{self._void} for pixels to ignore"
                )
            if classes > self._labels:
                raise UserError(
                    f"MODEL.SEM_SEG_HEAD.NUM_CLASSES is {classes}, but {self._dataset_name} has "
                    f"{self._labels} classes"
                )
        super().process(inputs, outputs)

    def evaluate(self) -> dict[str, dict[str, float]] | None:
        """Compute the metrics, in percent, over the predictions of all processes.

        Returns:
            ``{"sem_seg": metric -> number}`` in the main process, None in others. The metrics are
            mIoU, those of ``class_subsets``, fwIoU, mACC, pACC, and IoU-NAME and ACC-NAME of each
            class. A class, or a subset of classes, without any label has NaN.
        """
        results = super().evaluate()
        if results is None:
            return None
        # Rows are predictions, columns labels; both without void, and of all processes.
        pixels = self._conf_matrix[:-1, :-1]
        shown = pixels.sum(axis=0) > 0
        union = pixels.sum(axis=0) + pixels.sum(axis=1) - pixels.diagonal()
        iou = 100 * pixels.diagonal() / np.maximum(union, 1)
        # Older versions of detectron2 count a class in mIoU that is predicted but not shown.
        chosen = {"mIoU": shown, **{metric: shown & some for metric, some in self._subsets.items()}}
        for metric, classes in chosen.items():
            results["sem_seg"][metric] = float(iou[classes].mean()) if classes.any() else math.nan
        return results
