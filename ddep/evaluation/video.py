"""The detectron2 evaluator of video instance segmentation."""

from __future__ import annotations

import json
import logging
import os
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any

from tabulate import tabulate

from ddep.evaluation.video_ap import METRICS, video_average_precision
from ddep.evaluation.video_evaluator import VideoEvaluator
from ddep.evaluation.video_tracks import VideoTrack, predicted_tracks, true_tracks
from ddep.files import atomic_write

logger = logging.getLogger(__name__)


class VideoAPEvaluator(VideoEvaluator[list[VideoTrack]]):
    """Average precision of tracks, as the YouTube-VIS API defines it, and files for its server.

    Of data sets without annotations only the files are written.
    """

    def __init__(self, dataset_name: str, output_dir: str) -> None:
        """
        Args:
            dataset_name: see :class:`VideoEvaluator`.
            output_dir: where ``video_segm/results.json`` and ``results.zip`` go.
        """
        # Results of training and evaluation are called results.json as well.
        super().__init__(dataset_name, os.path.join(output_dir, "video_segm"))

    def process(
        self, inputs: Sequence[Mapping[str, Any]], outputs: Sequence[Mapping[str, Any]]
    ) -> None:
        """Collect predictions.

        Args:
            inputs: dicts with ``video_id``.
            outputs: dicts with ``pred_scores``, ``pred_labels`` (contiguous) and ``pred_masks``:
                for each track a list of run lengths, one for each frame of the video.

        Raises:
            UserError: a class that the data set does not have, or masks of another size than the
                video's.
        """
        for video, output in zip(inputs, outputs, strict=True):
            number = video["video_id"]
            self._found[number] = predicted_tracks(
                self._name, self._records[number], output, len(self._classes)
            )

    def evaluate(self) -> dict[str, dict[str, float]] | None:
        """Write the files and compute the metrics over the videos of all processes.

        Returns:
            ``{"video_segm": metric -> number}``, in percent, see
            :func:`ddep.evaluation.video_ap.video_average_precision`; empty without annotations,
            None on all but the main process.

        Raises:
            UserError: the files cannot be written.
        """
        tracks = self._gather()
        if tracks is None:
            return None
        self._write(tracks)
        if not all("annotations" in record for record in self._records.values()):
            logger.info(
                f"{self._name} has no annotations: nothing is measured; upload "
                f"{os.path.join(self._folder, 'results.zip')} to its server"
            )
            return {}
        self._warn_of_missing(len(self._records) - len(tracks), len(self._records))
        truth = {number: true_tracks(record) for number, record in self._records.items()}
        results = video_average_precision(truth, tracks, self._classes)
        table = tabulate([[results[name] for name in METRICS]], METRICS, "pipe", floatfmt=".3f")
        logger.info(f"Average precision of tracks on {self._name}:\n{table}")
        return {"video_segm": results}

    def _write(self, tracks: Mapping[int, Sequence[VideoTrack]]) -> None:
        """Write ``results.json`` in YouTube-VIS's format, and zipped as its server takes it."""
        entries = [
            {
                "video_id": number,
                "score": track.score,
                "category_id": self._dataset_ids[track.category],
                "segmentations": [mask and _with_text(mask) for mask in track.masks],
            }
            for number in sorted(tracks)
            for track in tracks[number]
        ]
        os.makedirs(self._folder, exist_ok=True)
        text = json.dumps(entries)
        with atomic_write(os.path.join(self._folder, "results.json")) as file:
            file.write(text.encode())
        with (
            atomic_write(os.path.join(self._folder, "results.zip")) as file,
            zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive,
        ):
            archive.writestr("results.json", text)


def _with_text(mask: Mapping[str, Any]) -> dict[str, Any]:
    counts = mask["counts"]
    return {
        "size": list(mask["size"]),
        "counts": counts if isinstance(counts, str) else counts.decode(),
    }
