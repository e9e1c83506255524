"""The costs of matching boxes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.ops import box_convert, generalized_box_iou

from ddep.modeling.matcher import Matcher, class_costs


class BoxMatcher(Matcher):
    """Matches boxes (DETR, arXiv 2005.12872, section 3.1 and appendix A.2).

    The cost of a pair is a weighted sum of minus the probability of the target's class, the L1
    distance of the boxes and minus their generalised IoU.
    """

    def __init__(self, *, cost_class: float, cost_l1: float, cost_giou: float) -> None:
        """
        Args:
            cost_class: weight of the classification cost.
            cost_l1: weight of the L1 distance.
            cost_giou: weight of minus the generalised IoU.
        """
        self.cost_class = cost_class
        self.cost_l1 = cost_l1
        self.cost_giou = cost_giou

    @torch.no_grad()
    def compute_costs(
        self,
        outputs_of_layers: Sequence[dict[str, Tensor]],
        labels: Sequence[Tensor],
        boxes: Tensor,
    ) -> Tensor:
        """As :meth:`Matcher.compute_costs`.

        Args:
            outputs_of_layers: with ``pred_boxes`` (B, Q, 4).
            labels: (T,) int64 for each image.
            boxes: (sum of T, 4). These and the predicted ones are cxcywh, relative to the image.
        """
        num_targets = [len(of_image) for of_image in labels]
        with torch.autocast(boxes.device.type, enabled=False):
            predicted = torch.stack([outputs["pred_boxes"] for outputs in outputs_of_layers])
            costs_of_images = [
                self._box_costs(of_image, targets)
                for of_image, targets in zip(
                    predicted.float().unbind(1), boxes.split(num_targets), strict=True
                )
            ]
            box_costs = torch.cat(costs_of_images, dim=-1)
            return self.cost_class * class_costs(outputs_of_layers, labels) + box_costs

    def _box_costs(self, predicted: Tensor, targets: Tensor) -> Tensor:
        """(L, Q, 4) predictions and (T, 4) targets of an image -> (L, Q, T)."""
        flat = predicted.flatten(0, 1)
        distances = torch.cdist(flat, targets, p=1)
        overlaps = generalized_box_iou(
            box_convert(flat, "cxcywh", "xyxy"), box_convert(targets, "cxcywh", "xyxy")
        )
        costs = self.cost_l1 * distances - self.cost_giou * overlaps
        return costs.view(*predicted.shape[:2], -1)
