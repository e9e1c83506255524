"""Mapper of target images with soft pseudo-labels that were made before training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode, configurable
from detectron2.data import transforms as T
from torch import Tensor

from ddep.data.map_sampling import sample_map
from ddep.data.mapper_registry import register_target_mapper
from ddep.data.mappers.target import WeakTargetMapper
from ddep.data.pseudo_labels import SoftLabel, label_path, read_index, read_label
from ddep.data.rand_augment import build_rand_augment, cut_out
from ddep.data.record import Record


@register_target_mapper("target_pseudo_labels")
class PseudoLabelTargetMapper(WeakTargetMapper):
    """Adds the image's soft pseudo-label, in the geometry of the weak view, and a strong view."""

    @configurable
    def __init__(
        self,
        *,
        geometry: T.AugmentationList,
        image_format: str,
        folder: Path,
        root: str,
        stride: int,
        strong: Callable[[Tensor], Tensor],
    ) -> None:
        """
        Args:
            geometry, image_format: as in :class:`WeakTargetMapper`.
            folder, root: of the pseudo-labels, see :mod:`ddep.data.pseudo_labels`.
            stride: pixels of the image that a pixel of the label spans, in both directions.
            strong: what makes a strong view of a weak one, before a square is cut out.
        """
        super().__init__(geometry=geometry, image_format=image_format)
        self.folder = folder
        self.root = root
        self.stride = stride
        self.strong = strong

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        folder = cfg.MODEL.ADAPTATION.PSEUDO_LABELS
        return {
            **super().from_config(cfg),
            "folder": Path(folder),
            "root": read_index(folder).root,
            "stride": cfg.MODEL.SEM_SEG_HEAD.COMMON_STRIDE,
            "strong": build_rand_augment(cfg.INPUT.FORMAT),
        }

    def __call__(self, record: Record) -> Record:
        """
        Returns:
            As :class:`WeakTargetMapper`, and ``pseudo_label`` (K, h, w) float32, probabilities at
            ``pseudo_label_stride``, with h and w rounded up, and 0 where the image does not reach;
            ``strong``, a list of one (3, H, W) uint8 view; and ``cut_out``, the top, left, bottom
            and right border of the square without content in it.

        Raises:
            UnreadableImageError: the image cannot be read.
            UserError: it has no pseudo-label, or a damaged one.
        """
        sample, corners = self.weak_view(record)
        label = read_label(label_path(self.folder, self.root, record["file_name"]))
        size = sample["image"].shape[-2:]
        sample["pseudo_label"] = place_label(label, corners, size, self.stride)
        sample["pseudo_label_stride"] = self.stride
        view, sample["cut_out"] = cut_out(self.strong(sample["image"]))
        sample["strong"] = [view]
        return sample


def place_label(
    label: SoftLabel, corners: np.ndarray, size: tuple[int, int], stride: int
) -> Tensor:
    """Resize, crop and mirror a pseudo-label as its image was.

    Args:
        label: of the original image.
        corners: (2, 2), x and y of the original image's upper left and lower right corner in the
            new image.
        size: height and width of the new image.
        stride: pixels of the new image that a pixel of the result spans.

    Returns:
        (K, h, w) float32, h and w being ``size`` divided by ``stride``, rounded up; 0 where the
        pixel's centre is outside the original or the new image.
    """
    positions, inside = [], []
    for length, covered, (start, end) in zip(size, label.covered, corners.T[::-1], strict=True):
        centres = (torch.arange(-(-length // stride), dtype=torch.float64) + 0.5) * stride
        fractions = (centres - start) / (end - start)
        positions.append(fractions * covered)
        inside.append((centres < length) & (fractions >= 0) & (fractions <= 1))
    placed = sample_map(label.probabilities, *positions)
    return placed * (inside[0][:, None] & inside[1])
