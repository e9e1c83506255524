"""What a model found in an image, as the page shows it: a list, and one of it at each pixel."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from detectron2.data import Metadata
from detectron2.structures import Instances
from detectron2.utils.colormap import colormap
from torch import Tensor

from ddep.drawing.classes import class_name

Colour = tuple[int, int, int]
NOTHING = -1


@dataclass(frozen=True)
class Segment:
    """A segment, an instance, or all pixels of a class.

    Attributes:
        class_id: number of its class.
        name: of its class.
        colour: of its class, RGB.
        area: in pixels.
        score: of a segment or an instance, from 0 to 1.
    """

    class_id: int
    name: str
    colour: Colour
    area: int
    score: float | None = None


@dataclass(frozen=True)
class Segments:
    """All that a model found in an image.

    Attributes:
        found: where they overlap, later ones are seen.
        filled: whether pictures fill them, or draw their outlines alone.
        labels: (H, W) int32, the position in ``found`` of each pixel's segment, or NOTHING, if
            segments do not overlap; else None.
        masks: (N, H, W) bool, if they may; else None.
    """

    found: Sequence[Segment]
    labels: np.ndarray | None = None
    masks: np.ndarray | None = None
    filled: bool = True

    def seen(self, hidden: Collection[str] = (), min_score: float = 0.0) -> np.ndarray:
        """Position in ``found`` of the segment that is seen at each pixel, or NOTHING.

        Args:
            hidden: names of classes that are not seen.
            min_score: segments with a smaller score are not seen.

        Returns:
            (H, W) int32.
        """
        visible = [
            segment.name not in hidden and (segment.score is None or segment.score >= min_score)
            for segment in self.found
        ]
        if self.labels is not None:
            # The last entry is that of NOTHING, -1.
            positions = [i if visible[i] else NOTHING for i in range(len(visible))] + [NOTHING]
            return np.array(positions, dtype=np.int32)[self.labels]
        seen = np.full(self.masks.shape[1:], NOTHING, dtype=np.int32)
        for position, mask in enumerate(self.masks):
            if visible[position]:
                seen[mask] = position
        return seen

    def mask(self, position: int) -> np.ndarray:
        """(H, W) bool, the pixels of one segment, those that others hide included."""
        return self.labels == position if self.masks is None else self.masks[position]


class Palette:
    """Names and colours of classes.

    Args:
        metadata: of the model's data set, with detectron2's ``stuff_classes``, ``thing_colors`` and
            so on; classes without a name are called by their number.
    """

    def __init__(self, metadata: Metadata | None) -> None:
        self._metadata = metadata
        self._colours = colormap(rgb=True, maximum=255).astype(int).tolist()

    def segment(self, kind: str, class_id: int, area: int, score: float | None = None) -> Segment:
        """Make a segment of a class of ``kind``, stuff or thing."""
        name = class_name(self._list(f"{kind}_classes"), class_id)
        colours = self._list(f"{kind}_colors")
        if class_id >= len(colours):
            colours = self._colours
        red, green, blue = map(int, colours[class_id % len(colours)])
        return Segment(class_id, name.strip(), (red, green, blue), area, score)

    def _list(self, key: str) -> Sequence[Any]:
        return (self._metadata.get(key) if self._metadata else None) or ()


def panoptic_segments(
    panoptic_seg: Tensor, segments_info: Sequence[dict[str, Any]], palette: Palette
) -> Segments:
    """Panoptic segments: (H, W) of ids, 0 for none, and facts about each as detectron2's."""
    ids = panoptic_seg.cpu().numpy()
    highest = max([0, *(info["id"] for info in segments_info)])
    positions = np.full(highest + 1, NOTHING, dtype=np.int32)
    areas = np.bincount(ids.ravel(), minlength=highest + 1)
    found = []
    for position, info in enumerate(segments_info):
        positions[info["id"]] = position
        kind = "thing" if info["isthing"] else "stuff"
        found.append(
            palette.segment(kind, info["category_id"], int(areas[info["id"]]), info.get("score"))
        )
    return Segments(found, labels=positions[ids])


def semantic_segments(classes: Tensor, palette: Palette) -> Segments:
    """One segment for each class of (H, W) class ids, the largest first."""
    ids, areas = torch.unique(classes, return_counts=True)
    order = areas.argsort(descending=True, stable=True)
    positions = np.full(int(ids.max()) + 1, NOTHING, dtype=np.int32)
    found = []
    for position, (class_id, area) in enumerate(
        zip(ids[order].tolist(), areas[order].tolist(), strict=True)
    ):
        positions[class_id] = position
        found.append(palette.segment("stuff", class_id, area))
    return Segments(found, labels=positions[classes.cpu().numpy()])


def instance_segments(instances: Instances, palette: Palette) -> Segments:
    """Instances by ascending score, with their masks; without masks, their boxes, not filled."""
    instances = instances.to("cpu")
    instances = instances[instances.scores.argsort(stable=True)]
    has_masks = instances.has("pred_masks")
    if has_masks:
        masks = instances.pred_masks.numpy().astype(bool, copy=False)
    else:
        # Small boxes are not hidden by large ones.
        instances = instances[instances.pred_boxes.area().argsort(descending=True, stable=True)]
        masks = _boxes_as_masks(instances)
    found = [
        palette.segment("thing", class_id, int(mask.sum()), score)
        for class_id, score, mask in zip(
            instances.pred_classes.tolist(), instances.scores.tolist(), masks, strict=True
        )
    ]
    return Segments(found, masks=masks, filled=has_masks)


def _boxes_as_masks(instances: Instances) -> np.ndarray:
    """(N, H, W) bool, True inside each box."""
    masks = np.zeros((len(instances), *instances.image_size), dtype=bool)
    boxes = instances.pred_boxes.tensor.round().int().tolist()
    for mask, (left, top, right, bottom) in zip(masks, boxes, strict=True):
        mask[max(top, 0) : max(bottom, top + 1), max(left, 0) : max(right, left + 1)] = True
    return masks
