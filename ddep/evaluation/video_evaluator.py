"""What evaluators of videos share: the data set, and what all processes have found."""

from __future__ import annotations

import logging
from typing import Generic, TypeVar

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm

logger = logging.getLogger(__name__)

Found = TypeVar("Found")


class VideoEvaluator(DatasetEvaluator, Generic[Found]):
    """Keeps something of each video, by its id."""

    def __init__(self, dataset_name: str, folder: str) -> None:
        """
        Args:
            dataset_name: a registered data set of videos, with ``thing_classes`` and
                ``thing_dataset_id_to_contiguous_id`` in its metadata.
            folder: where files go.
        """
        self._name = dataset_name
        metadata = MetadataCatalog.get(dataset_name)
        self._classes = metadata.thing_classes
        numbers = metadata.thing_dataset_id_to_contiguous_id
        self._dataset_ids = {contiguous: number for number, contiguous in numbers.items()}
        self._folder = folder
        self._records = {r["video_id"]: r for r in DatasetCatalog.get(dataset_name)}
        self.reset()

    def reset(self) -> None:
        """Forget all videos."""
        self._found: dict[int, Found] = {}

    def _gather(self) -> dict[int, Found] | None:
        """What all processes have found; None on all but the main process."""
        gathered = comm.gather(self._found)
        if not comm.is_main_process():
            return None
        return {number: found for part in gathered for number, found in part.items()}

    def _warn_of_missing(self, missing: int, videos: int) -> None:
        """Say how many of the videos were not predicted, if any."""
        if missing:
            logger.warning(
                f"{missing} of the {videos} videos of {self._name} were not predicted; their "
                "objects count as missed"
            )
