"""Pictures of an evaluation: the truth beside the prediction."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.data import DatasetCatalog, Metadata, MetadataCatalog
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm
from PIL import Image

from ddep.data.datasets.preparation import write_png
from ddep.drawing.contact_sheet import draw_record
from ddep.event_storage import current_event_storage

logger = logging.getLogger(__name__)

# Images that are drawn, one a row.
NUM_ROWS = 4


class PredictionPictures(DatasetEvaluator):
    """Draws the first images of a data set: truth on the left, prediction on the right.

    They go to ``<kind>.png`` and, in training, to the event storage (TensorBoard). This evaluator
    measures nothing.
    """

    def __init__(
        self,
        draw: Callable[[Mapping[str, Any], Mapping[str, Any], Metadata], np.ndarray],
        dataset_name: str,
        output_folder: str,
        kind: str,
    ) -> None:
        """
        Args:
            draw: from the model's input and output for an image and the data set's metadata to
                (H, W, 3) uint8, RGB.
            dataset_name: of a registered data set with labels.
            output_folder: where the picture goes.
            kind: the name of the picture: the kind of predictions, such as ``segmentation``.
        """
        self._draw = draw
        self._name = dataset_name
        self._output_folder = output_folder
        self._kind = kind
        self.reset()

    def reset(self) -> None:
        self._predictions: dict[str, np.ndarray] = {}

    def process(
        self, inputs: Sequence[Mapping[str, Any]], outputs: Sequence[Mapping[str, Any]]
    ) -> None:
        """Draw the predictions for the first images of the main process."""
        if not comm.is_main_process():
            return
        for image, output in zip(inputs, outputs, strict=True):
            if len(self._predictions) < NUM_ROWS:
                picture = self._draw(image, output, MetadataCatalog.get(self._name))
                self._predictions[image["file_name"]] = picture

    def evaluate(self) -> dict[str, Any]:
        """Draw the truth beside the predictions, and write the picture; there are no results."""
        if not self._predictions:
            return {}
        metadata = MetadataCatalog.get(self._name)
        rows = []
        for record in DatasetCatalog.get(self._name):
            if record["file_name"] in self._predictions:
                truth = draw_record(record, metadata)
                predicted = Image.fromarray(self._predictions[record["file_name"]])
                size = truth.shape[1], truth.shape[0]
                rows.append(np.concatenate([truth, np.asarray(predicted.resize(size))], axis=1))
        width = max(row.shape[1] for row in rows)
        grid = np.concatenate(
            [np.pad(row, ((0, 0), (0, width - row.shape[1]), (0, 0))) for row in rows]
        )
        path = os.path.join(self._output_folder, f"{self._kind}.png")
        write_png(Path(path), grid)
        logger.info("Pictures, truth | prediction: %s", path)
        storage = current_event_storage()
        if storage is not None:
            pixels = torch.from_numpy(grid).permute(2, 0, 1)
            storage.put_image(f"{self._kind}/{self._name}", pixels)
        return {}
