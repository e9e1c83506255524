"""Mapper of target images that makes several views of each: crops, enlarged and maybe flipped."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.data import transforms as T
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from ddep.config_checks import check_range
from ddep.data.mapper_registry import register_target_mapper
from ddep.data.mappers.target import WeakTargetMapper, strong_changes
from ddep.data.record import Record
from ddep.errors import UserError


@register_target_mapper("target_crops")
class TargetCropsMapper(WeakTargetMapper):
    """Adds views of the image and a strong view of each (DA-SAC, arXiv 2105.00097, section 3.1)."""

    @configurable
    def __init__(
        self,
        *,
        geometry: T.AugmentationList,
        image_format: str,
        photometric: Callable[[Tensor], Tensor],
        views: int,
        zoom: Sequence[float],
        flip: str,
    ) -> None:
        """
        Args:
            geometry, image_format: as in :class:`WeakTargetMapper`.
            photometric: see :func:`ddep.data.photometric.build_photometric`.
            views: how many of an image, at least 1; the first is the image itself.
            zoom: smallest and largest side of the other views' crops, as a fraction of the image's.
            flip: of half of the other views: ``"horizontal"``, ``"vertical"`` or ``"none"``.
        """
        super().__init__(geometry=geometry, image_format=image_format)
        self.photometric = photometric
        self.views = views
        self.zoom = zoom
        self.flip = flip

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        keys = cfg.MODEL.ADAPTATION.SAC
        if not keys.VIEWS >= 1:
            raise UserError(f"MODEL.ADAPTATION.SAC.VIEWS is {keys.VIEWS}; expected at least 1")
        check_range("MODEL.ADAPTATION.SAC.ZOOM", keys.ZOOM, at_most=1)
        return {
            **super().from_config(cfg),
            "photometric": strong_changes(cfg),
            "views": keys.VIEWS,
            "zoom": keys.ZOOM,
            "flip": cfg.INPUT.RANDOM_FLIP,
        }

    def __call__(self, record: Record) -> Record:
        """
        Returns:
            As :class:`WeakTargetMapper`, and lists of the views, each (3, H, W) uint8 like
            ``image``: ``views``, the first of which is ``image``, and ``strong``, their strong
            views; ``to_frame`` (views, 2, 3) float32, the affine map from each view's coordinates
            to those of ``image``, as :mod:`ddep.adaptation.warping` has them.
        """
        sample = super().__call__(record)
        image = sample["image"]
        views, maps = [image], [((1.0, 0.0, 0.0), (0.0, 1.0, 0.0))]
        for _ in range(self.views - 1):
            view, to_frame = self._draw_view(image)
            views.append(view)
            maps.append(to_frame)
        strong = [self.photometric(view) for view in views]
        return {**sample, "views": views, "strong": strong, "to_frame": torch.tensor(maps)}

    def _draw_view(self, image: Tensor) -> tuple[Tensor, tuple[tuple[float, ...], ...]]:
        rows, columns = image.shape[-2:]
        zoom = torch.empty(()).uniform_(*self.zoom).item()
        height, width = max(1, int(zoom * rows)), max(1, int(zoom * columns))
        top = int(torch.randint(rows - height + 1, ()))
        left = int(torch.randint(columns - width + 1, ()))
        view = F.resized_crop(image, top, left, height, width, [rows, columns], antialias=True)
        x_scale, y_scale = width / columns, height / rows
        if self.flip != "none" and torch.rand(()) < 0.5:
            if self.flip == "horizontal":
                view, x_scale = F.horizontal_flip(view), -x_scale
            else:
                view, y_scale = F.vertical_flip(view), -y_scale
        x_centre, y_centre = (2 * left + width) / columns - 1, (2 * top + height) / rows - 1
        return view, ((x_scale, 0.0, x_centre), (0.0, y_scale, y_centre))
