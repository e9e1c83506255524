"""The detectron2 evaluator of tracking: HOTA, MOTA, IDF1 and their parts."""

from __future__ import annotations

import functools
import logging
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

from detectron2.data import MetadataCatalog
from tabulate import tabulate

from ddep.data.record import Record
from ddep.data.records import load_records
from ddep.evaluation import tracking_metrics
from ddep.evaluation.tracking_files import mot_text, mots_text
from ddep.evaluation.tracking_frames import (
    SCORE_THRESHOLD,
    Shapes,
    boxes_of,
    class_frames,
    disjoint_masks,
)
from ddep.evaluation.tracking_metrics import METRICS, Sums, TrackedSequence, add_sums
from ddep.evaluation.video_evaluator import VideoEvaluator
from ddep.evaluation.video_tracks import VideoTrack, check_video_records, predicted_tracks
from ddep.files import atomic_write

logger = logging.getLogger(__name__)


class TrackingEvaluator(VideoEvaluator[list[Sums]]):
    """Tracking metrics as TrackEval defines them, and files for the servers of MOTChallenge.

    Masks are compared, or boxes where the data set has no masks. Tracks whose score is below
    :data:`ddep.evaluation.tracking_frames.SCORE_THRESHOLD` are left out. Each video is compared
    as soon as it is predicted; only sums are kept.
    """

    def __init__(self, dataset_name: str, output_dir: str) -> None:
        """
        Args:
            dataset_name: see :class:`VideoEvaluator`; its metadata have ``boxes_only`` if it has
                no masks. Records may have a ``video_name``, which names the video's file.
            output_dir: where ``tracking/VIDEO.txt`` go.
        """
        super().__init__(dataset_name, os.path.join(output_dir, "tracking"))
        self._are_boxes = MetadataCatalog.get(dataset_name).get("boxes_only", False)

    def process(
        self, inputs: Sequence[Mapping[str, Any]], outputs: Sequence[Mapping[str, Any]]
    ) -> None:
        """Compare predictions with the truth, and write them.

        Args:
            inputs: dicts with ``video_id``.
            outputs: dicts with ``pred_scores``, ``pred_labels`` (contiguous) and ``pred_masks``:
                for each track a list of run lengths, one for each frame of the video. For boxes
                there may be ``pred_boxes``, such lists of (left, top, width, height) or None;
                without them the masks' boxes count.

        Raises:
            UserError: a class that the data set does not have, masks of another size than the
                video's, or a file that cannot be written.
        """
        for video, output in zip(inputs, outputs, strict=True):
            record = self._records[video["video_id"]]
            certain = [i for i, s in enumerate(output["pred_scores"]) if s >= SCORE_THRESHOLD]
            output = {
                key: [output[key][i] for i in certain]
                for key in ("pred_scores", "pred_labels", "pred_masks", "pred_boxes")
                if key in output
            }
            tracks = predicted_tracks(self._name, record, output, len(self._classes))
            if not tracks:
                shapes = _no_shapes(record)
            elif self._are_boxes:
                shapes = boxes_of(tracks, output.get("pred_boxes"))
            else:
                shapes = disjoint_masks(tracks)
            self._write(record, tracks, shapes)
            if "annotations" in record:
                self._found[record["video_id"]] = self._compare(record, tracks, shapes)

    def _compare(self, record: Record, tracks: Sequence[VideoTrack], shapes: Shapes) -> list[Sums]:
        sums = []
        for category in range(len(self._classes)):
            of_class = [
                {i: shape for i, shape in frame.items() if tracks[i].category == category}
                for frame in shapes
            ]
            frames = class_frames(record, category, of_class, are_boxes=self._are_boxes)
            sums.append(tracking_metrics.sequence_sums(TrackedSequence.of(frames)))
        return sums

    def _write(self, record: Record, tracks: Sequence[VideoTrack], shapes: Shapes) -> None:
        if self._are_boxes:
            text = mot_text(shapes, [track.score for track in tracks])
        else:
            text = mots_text(shapes, [self._dataset_ids[track.category] for track in tracks])
        name = re.sub(r"[^\w.-]+", "_", str(record.get("video_name", record["video_id"])))
        os.makedirs(self._folder, exist_ok=True)
        with atomic_write(os.path.join(self._folder, f"{name}.txt")) as file:
            file.write(text.encode())

    def evaluate(self) -> dict[str, dict[str, float]] | None:
        """Compute the metrics over the videos of all processes.

        Returns:
            ``{"tracking": metric -> number}``: ratios in percent and counts, averaged (counts:
            added) over the classes that occur, see :mod:`ddep.evaluation.tracking_metrics`, and
            ``HOTA-<class>``. Empty without annotations, None on all but the main process.
        """
        sums = self._gather()
        if sums is None:
            return None
        annotated = {n: record for n, record in self._records.items() if "annotations" in record}
        if not annotated:
            logger.info(f"{self._name} has no annotations: nothing is measured; see {self._folder}")
            return {}
        missing = annotated.keys() - sums.keys()
        self._warn_of_missing(len(missing), len(annotated))
        for number in missing:
            sums[number] = self._compare(annotated[number], [], _no_shapes(annotated[number]))
        totals = [
            functools.reduce(add_sums, of_class) for of_class in zip(*sums.values(), strict=True)
        ]
        results = tracking_metrics.class_average(totals)
        table = tabulate([[results[name] for name in METRICS]], METRICS, "pipe", floatfmt=".2f")
        logger.info(f"Tracking on {self._name}:\n{table}")
        for name, total in zip(self._classes, totals, strict=True):
            results[f"HOTA-{name}"] = tracking_metrics.class_average([total])["HOTA"]
        return {"tracking": results}


def check_tracking_records(dataset_name: str) -> None:
    """Raise :class:`UserError` if the records of a data set cannot be evaluated.

    A damaged annotation file is found here, not after training.
    """
    if MetadataCatalog.get(dataset_name).get("boxes_only", False):
        load_records("DATASETS.TEST", [dataset_name], filter_empty=False)
    else:
        check_video_records(dataset_name)


def _no_shapes(record: Record) -> Shapes:
    return [{} for _ in range(record["length"])]
