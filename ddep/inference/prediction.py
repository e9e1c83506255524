"""What a model says about one image."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import Metadata
from detectron2.structures import Instances

from ddep.data.datasets.preparation import write_jpeg, write_png
from ddep.data.image_reader import read_image
from ddep.drawing.denoising import to_picture
from ddep.errors import UserError
from ddep.tasks import Task


class Prediction:
    """A model's results for one image, as arrays; None where the model has no such result.

    Arrays are computed when they are first used. H and W are the size of the original image.

    Attributes:
        inputs: what the mapper gave the model.
        outputs: what the model gave back, as detectron2's evaluators take it.
    """

    def __init__(
        self,
        inputs: Mapping[str, Any],
        outputs: Mapping[str, Any],
        cfg: CfgNode,
        task: Task,
        metadata: Metadata | None,
    ) -> None:
        """
        Args:
            inputs, outputs: of the model, for one image.
            cfg: the model's config.
            task: the model's.
            metadata: names and colours of the classes; None for a model without classes.
        """
        self.inputs = inputs
        self.outputs = outputs
        self._cfg = cfg
        self._task = task
        self._metadata = metadata

    @cached_property
    def image(self) -> np.ndarray:
        """The original image, upright: (H, W, 3) uint8, RGB. Of a file, it is read again."""
        return read_image(self.inputs["file_name"], "RGB")

    @cached_property
    def semantic(self) -> np.ndarray | None:
        """(H, W) int64, the class of each pixel: the one with the largest score."""
        scores = self.outputs.get("sem_seg")
        return None if scores is None else scores.argmax(0).cpu().numpy()

    @cached_property
    def panoptic(self) -> tuple[np.ndarray, list[dict[str, Any]]] | None:
        """(H, W) int32, the segment of each pixel, 0 for none; and for each segment its ``id``,
        ``category_id`` (the class, counted from 0), ``isthing`` and ``score``."""
        if "panoptic_seg" not in self.outputs:
            return None
        ids, segments = self.outputs["panoptic_seg"]
        return ids.cpu().numpy(), segments

    @cached_property
    def instances(self) -> Instances | None:
        """Objects with masks, on the CPU: ``pred_masks`` (N, H, W) bool, ``scores`` (N,) and
        ``pred_classes`` (N,) int64, best first; ``pred_boxes`` around them."""
        found = self._objects
        return found if found is not None and found.has("pred_masks") else None

    @cached_property
    def boxes(self) -> Instances | None:
        """Objects with boxes, on the CPU: ``pred_boxes`` (left, top, right, bottom in pixels),
        ``scores`` and ``pred_classes``. A detector without masks has these alone."""
        found = self._objects
        return found if found is not None and found.has("pred_boxes") else None

    @cached_property
    def classes(self) -> np.ndarray | None:
        """(K,) float32, the probability of each class of the whole image."""
        scores = self.outputs.get("classes")
        return None if scores is None else scores.float().cpu().numpy()

    @cached_property
    def denoised(self) -> np.ndarray | None:
        """(h, w, 3) uint8, RGB: the image without the noise that was added to it. Its size is that
        of the model's input (INPUT.MIN_SIZE_TEST)."""
        pixels = self.outputs.get("denoised")
        if pixels is None:
            return None
        mean, std = (
            torch.tensor(numbers).view(-1, 1, 1)
            for numbers in (self._cfg.MODEL.PIXEL_MEAN, self._cfg.MODEL.PIXEL_STD)
        )
        picture = to_picture(pixels.cpu() * std + mean, self._cfg.INPUT.FORMAT)
        return picture.permute(1, 2, 0).contiguous().numpy()

    @cached_property
    def _objects(self) -> Instances | None:
        found = self.outputs.get("instances")
        return None if found is None else found.to("cpu")

    def draw(self) -> np.ndarray:
        """Draw the results over the image: (height, width, 3) uint8, RGB.

        Small images are enlarged; see :meth:`ddep.tasks.Task.draw`.
        """
        return self._task.draw(self._cfg, self.inputs, self.outputs, self._metadata)

    def save(self, path: str | Path) -> None:
        """Write the picture that :meth:`draw` makes, whole or not at all.

        Args:
            path: ends in .png, .jpg or .jpeg; its folder is made if need be.

        Raises:
            UserError: another ending, or the file cannot be written.
        """
        path = Path(path)
        writers = {".png": write_png, ".jpg": write_jpeg, ".jpeg": write_jpeg}
        if path.suffix.lower() not in writers:
            raise UserError(f"{path} ends in {path.suffix!r}; expected {', '.join(writers)}")
        writers[path.suffix.lower()](path, self.draw())
