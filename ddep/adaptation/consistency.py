"""UniMatch V2 (arXiv 2410.10777): two strong views learn the labels of a weak view."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import torch
from detectron2.config import CfgNode
from torch import Tensor

from ddep.adaptation.mean_teacher import learn_sure_pixels
from ddep.adaptation.method import AdaptationBatch, Method
from ddep.adaptation.registry import register_method
from ddep.config_checks import check_not_negative, check_probability, check_range
from ddep.modeling.pixel_classifier import valid_pixels

_VIEWS = 2


class Box(NamedTuple):
    """Pixels ``top <= y < bottom``, ``left <= x < right``; empty if nothing is pasted."""

    top: int = 0
    left: int = 0
    bottom: int = 0
    right: int = 0


@register_method
class Consistency(Method):
    """The teacher labels the weak view; the student learns the labels it is sure of.

    A box of the pair's other image, with its labels, is pasted into each strong view (CutMix, arXiv
    1905.04899), and the encoder's features of the two views lose complementary channels.
    """

    name: ClassVar = "consistency"
    target_mapper: ClassVar = "target_strong_pair"
    needs_teacher: ClassVar = True
    in_pairs: ClassVar = True

    def __init__(self, cfg: CfgNode, num_classes: int) -> None:
        super().__init__(cfg, num_classes)
        keys = cfg.MODEL.ADAPTATION.CONSISTENCY
        self.weight = keys.WEIGHT
        self.threshold = keys.THRESHOLD
        self.cutmix_probability = keys.CUTMIX_PROBABILITY
        self.cutmix_area = keys.CUTMIX_AREA
        self.cutmix_aspect = keys.CUTMIX_ASPECT
        self.dropout_probability = keys.DROPOUT_PROBABILITY

    @classmethod
    def check(cls, cfg: CfgNode) -> None:
        """As :meth:`Method.check`."""
        path, keys = "MODEL.ADAPTATION.CONSISTENCY", cfg.MODEL.ADAPTATION.CONSISTENCY
        check_not_negative(f"{path}.WEIGHT", keys.WEIGHT)
        for key in ("THRESHOLD", "CUTMIX_PROBABILITY", "DROPOUT_PROBABILITY"):
            check_probability(f"{path}.{key}", keys[key])
        check_range(f"{path}.CUTMIX_AREA", keys.CUTMIX_AREA, at_most=1)
        check_range(f"{path}.CUTMIX_ASPECT", keys.CUTMIX_ASPECT)

    def losses(self, batch: AdaptationBatch) -> dict[str, Tensor]:
        """``loss_consistency``: the mean over both strong views (section 3.2, equation 6).

        Cross entropy, summed over the pixels where the teacher's probability is at least THRESHOLD
        and divided by the number of all pixels of the image.
        """
        classifier, target = batch.classifier, batch.target
        weak = classifier.images(target)
        taught = batch.teacher.predict(weak.tensor).log_probabilities[0]
        size = tuple(taught.shape[-2:])
        generators = [torch.Generator().manual_seed(inputs["seed"]) for inputs in target]
        images, boxes = zip(
            *(self._mix(target, view, generators) for view in range(_VIEWS)), strict=True
        )
        strong = classifier.batch_images([image for view in images for image in view])
        features = classifier.features(strong.tensor)
        predictions = classifier.predict(self._drop_channels(features, generators))
        learned = predictions.log_probabilities[0].chunk(_VIEWS)
        valid = valid_pixels(weak, size)
        of_views = []
        for log_probabilities, view_boxes in zip(learned, boxes, strict=True):
            pasted = _inside(view_boxes, size, tuple(weak.tensor.shape[-2:])).to(taught.device)
            mixed = torch.where(pasted[:, None], _partners(taught), taught)
            of_views.append(learn_sure_pixels(log_probabilities, mixed, valid, self.threshold))
        per_image = torch.stack(of_views).mean(0)
        return {"loss_consistency": self.weight * batch.target_mean(per_image)}

    def _mix(
        self, target: Sequence[dict[str, Any]], view: int, generators: Sequence[torch.Generator]
    ) -> tuple[list[Tensor], list[Box]]:
        """A strong view of each image with a box of its partner's, and the boxes."""
        views = [inputs["strong"][view] for inputs in target]
        partners = [views[i ^ 1] for i in range(len(views))]
        mixed, boxes = [], []
        for image, partner, generator in zip(views, partners, generators, strict=True):
            box = Box()
            if torch.rand((), generator=generator) < self.cutmix_probability:
                box = self.draw_box(tuple(image.shape[-2:]), generator)
                height, width = partner.shape[-2:]
                box = box._replace(bottom=min(box.bottom, height), right=min(box.right, width))
                image = image.clone()
                top, left, bottom, right = box
                image[:, top:bottom, left:right] = partner[:, top:bottom, left:right]
            mixed.append(image)
            boxes.append(box)
        return mixed, boxes

    def draw_box(self, size: tuple[int, int], generator: torch.Generator) -> Box:
        """Draw a box in an image of ``size``, height and width.

        Its area and its height divided by its width are uniform in CUTMIX_AREA and CUTMIX_ASPECT;
        what does not fit is cut off. Then its place is uniform.
        """
        height, width = size
        area = _uniform(self.cutmix_area, generator) * height * width
        aspect = _uniform(self.cutmix_aspect, generator)
        rows = min(height, round(math.sqrt(area * aspect)))
        columns = min(width, round(math.sqrt(area / aspect)))
        top = int(torch.randint(height - rows + 1, (), generator=generator))
        left = int(torch.randint(width - columns + 1, (), generator=generator))
        return Box(top, left, top + rows, left + columns)

    def _drop_channels(
        self, features: dict[str, Tensor], generators: Sequence[torch.Generator]
    ) -> dict[str, Tensor]:
        """Complementary dropout (section 3.3): the first views' channels times m in {0, 2}, the
        second views' times 2 - m; layers with equal numbers of channels share m."""
        is_dropped = [
            bool(torch.rand((), generator=generator) < self.dropout_probability)
            for generator in generators
        ]
        masks: dict[int, Tensor] = {}
        for channels in sorted({feature.shape[1] for feature in features.values()}):
            rows = [
                2.0 * torch.randint(2, (channels,), generator=generator)
                if dropped
                else torch.ones(channels)
                for generator, dropped in zip(generators, is_dropped, strict=True)
            ]
            first = torch.stack(rows)
            masks[channels] = torch.cat([first, 2 - first])[:, :, None, None]
        return {
            name: feature * masks[feature.shape[1]].to(feature)
            for name, feature in features.items()
        }


def _partners(maps: Tensor) -> Tensor:
    """The other image's of each pair (0, 1), (2, 3), ... of ``maps`` (B, ...)."""
    return maps.unflatten(0, (-1, 2)).flip(1).flatten(0, 1)


def _inside(boxes: Sequence[Box], size: tuple[int, int], full: tuple[int, int]) -> Tensor:
    """Which pixels' centres lie in the boxes.

    Args:
        boxes: in pixels of images of size ``full``, one for each image.
        size: h, w of the maps.
        full: H, W of the padded images that the maps cover.

    Returns:
        (B, h, w) bool.
    """
    edges = torch.tensor(boxes)
    rows, columns = (
        (torch.arange(length) + 0.5) * (whole / length)
        for length, whole in zip(size, full, strict=True)
    )
    inside_rows = (rows >= edges[:, 0:1]) & (rows < edges[:, 2:3])
    inside_columns = (columns >= edges[:, 1:2]) & (columns < edges[:, 3:4])
    return inside_rows[:, :, None] & inside_columns[:, None, :]


def _uniform(limits: Sequence[float], generator: torch.Generator) -> float:
    low, high = limits
    return low + (high - low) * float(torch.rand((), generator=generator))
