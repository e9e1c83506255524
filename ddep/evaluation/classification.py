"""Accuracy, precision, recall and F1 of image classification; average precision of many labels."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from detectron2.data import MetadataCatalog
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm

from ddep.errors import UserError

logger = logging.getLogger(__name__)

METRICS = ("top1", "top5", "precision", "recall", "f1", "mAP")
# Classes of a higher probability are predicted, where an image may have several.
THRESHOLD = 0.5


def check_classes(dataset_name: str) -> None:
    """Raise :class:`UserError` unless a data set's metadata has the ``classes``."""
    if not MetadataCatalog.get(dataset_name).get("classes"):
        raise UserError(
            f"data set {dataset_name} has no classes in its metadata, which classification needs; "
            f"set them with MetadataCatalog.get({dataset_name!r}).set(classes=...)"
        )


class ClassificationEvaluator(DatasetEvaluator):
    """Compares classes with the probabilities that a model gives them.

    Where each image has one class: top1 and, of more than five classes, top5, the share of images
    whose class is (among the five) most probable; precision, recall and F1 of the most probable
    class. Where images have any number of classes (``multi_label`` in the metadata): mAP, the mean
    over classes of the average precision, the area under the steps of precision over recall; and
    precision, recall and F1 of all classes above a probability of 0.5.

    Precision, recall and F1 are means over classes. Classes that are neither true nor predicted in
    any image are left out, and of 0 images, a share is 0. In mAP, classes that no image has are
    left out.
    """

    def __init__(self, dataset_name: str, output_dir: str | None = None) -> None:
        """
        Args:
            dataset_name: a registered data set with ``classes`` in its metadata.
            output_dir: not used: nothing is written.

        Raises:
            UserError: see :func:`check_classes`.
        """
        check_classes(dataset_name)
        metadata = MetadataCatalog.get(dataset_name)
        self._name = dataset_name
        self._num_classes = len(metadata.classes)
        self._multi_label = bool(metadata.get("multi_label", False))
        self.reset()

    def reset(self) -> None:
        """Forget all images."""
        self._counts = np.zeros((3, self._num_classes), dtype=np.int64)
        self._images = 0
        self._hits = np.zeros(2, dtype=np.int64)  # top 1 and top 5
        self._scores: list[np.ndarray] = []
        self._truth: list[np.ndarray] = []

    def process(
        self, inputs: Sequence[Mapping[str, Any]], outputs: Sequence[Mapping[str, Any]]
    ) -> None:
        """Compare predictions with the truth.

        Args:
            inputs: dicts with ``classes`` (N,) int64 and ``file_name``.
            outputs: dicts with ``classes`` (K,), the probability of each class.

        Raises:
            UserError: the model has another number of classes than the data set.
        """
        for image, output in zip(inputs, outputs, strict=True):
            scores = output["classes"].float().cpu().numpy()
            if len(scores) != self._num_classes:
                raise UserError(
                    f"MODEL.CLASSIFIER.NUM_CLASSES is {len(scores)}, but {self._name} has "
                    f"{self._num_classes} classes"
                )
            true = np.zeros(self._num_classes, dtype=bool)
            true[image["classes"].numpy()] = True
            self._images += 1
            if self._multi_label:
                predicted = scores > THRESHOLD
                self._scores.append(scores)
                self._truth.append(true)
            else:
                best = np.argsort(-scores, kind="stable")[:5]
                predicted = np.zeros_like(true)
                predicted[best[0]] = True
                self._hits += true[best[0]], true[best].any()
            self._counts += true & predicted, predicted, true

    def evaluate(self) -> dict[str, dict[str, float]] | None:
        """Compute the metrics, in percent, over the images of all processes.

        Returns:
            ``{"classification": metric -> number}`` in the main process, None in others.
        """
        own = (self._counts, self._images, self._hits, self._scores, self._truth)
        parts = comm.gather(own)
        if not comm.is_main_process():
            return None
        counts, images, hits = (sum(column) for column in list(zip(*parts, strict=True))[:3])
        if self._multi_label:
            scores = np.stack([score for part in parts for score in part[3]])
            truth = np.stack([true for part in parts for true in part[4]])
            results = {"mAP": 100 * mean_average_precision(scores, truth)}
        else:
            names = ("top1", "top5") if self._num_classes > 5 else ("top1",)
            results = {name: 100 * hit / images for name, hit in zip(names, hits, strict=False)}
        results |= {name: 100 * value for name, value in precision_recall_f1(*counts).items()}
        results = {name: float(value) for name, value in results.items()}
        logger.info(
            f"Classification of {images} images of {self._name}: "
            + ", ".join(f"{name} {value:.2f}" for name, value in results.items())
        )
        return {"classification": results}


def precision_recall_f1(
    correct: np.ndarray, predicted: np.ndarray, true: np.ndarray
) -> dict[str, float]:
    """Means over classes of precision, recall and F1, from 0 to 1.

    Args:
        correct, predicted, true: (K,) the number of images of which a class was rightly predicted,
            predicted, and true.

    Returns:
        ``precision``, ``recall`` and ``f1``. Classes that were neither predicted nor true are left
        out; NaN if that are all. Of a class that was never predicted the precision is 0, of one
        that is never true the recall.
    """
    counts = predicted + true > 0
    if not counts.any():
        return dict.fromkeys(("precision", "recall", "f1"), float("nan"))
    shares = {
        "precision": correct / np.maximum(predicted, 1),
        "recall": correct / np.maximum(true, 1),
        "f1": 2 * correct / np.maximum(predicted + true, 1),
    }
    return {name: share[counts].mean() for name, share in shares.items()}


def mean_average_precision(scores: np.ndarray, truth: np.ndarray) -> float:
    """Mean over classes of the average precision: sum over n of (R_n - R_(n-1)) P_n, from 0 to 1.

    P_n and R_n are precision and recall of the images whose score is at least the n-th highest
    value that occurs.

    Args:
        scores: (N, K).
        truth: (N, K) bool.

    Returns:
        The mean over the classes that are true of an image; NaN if none is.
    """
    precisions = []
    for k in np.flatnonzero(truth.any(axis=0)):
        order = np.argsort(-scores[:, k], kind="stable")
        hits = np.cumsum(truth[order, k])
        # Images of equal scores are above a threshold together.
        last = np.append(np.flatnonzero(np.diff(scores[order, k])), len(order) - 1)
        recall = hits[last] / hits[-1]
        precisions.append(np.sum(np.diff(recall, prepend=0) * hits[last] / (last + 1)))
    return float(np.mean(precisions)) if precisions else float("nan")
