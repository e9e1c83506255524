"""The training losses of DETR."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import box_convert, generalized_box_iou_loss

from ddep.event_storage import current_event_storage
from ddep.modeling.box_matcher import BoxMatcher
from ddep.modeling.matching_criterion import MatchedPairs, MatchingCriterion


class BoxCriterion(MatchingCriterion):
    """Classification, L1 and GIoU losses of matched boxes (arXiv 2005.12872, appendix A.2)."""

    targets_name: ClassVar = "boxes"

    def __init__(
        self,
        num_classes: int,
        *,
        matcher: BoxMatcher,
        class_weight: float,
        l1_weight: float,
        giou_weight: float,
        no_object_weight: float,
        num_aux_outputs: int,
    ) -> None:
        """
        Args:
            num_classes: K, without the no-object class.
            matcher: assigns queries to targets.
            class_weight, l1_weight, giou_weight: the values of ``weight_dict``, by which the caller
                multiplies the losses.
            no_object_weight, num_aux_outputs: see :class:`MatchingCriterion`.
        """
        weights = {"loss_ce": class_weight, "loss_bbox": l1_weight, "loss_giou": giou_weight}
        super().__init__(
            num_classes,
            matcher=matcher,
            weights=weights,
            no_object_weight=no_object_weight,
            num_aux_outputs=num_aux_outputs,
        )

    def forward(
        self,
        outputs: dict[str, Any],
        targets: Sequence[dict[str, Tensor]],
        normalisers: Mapping[str, Tensor],
    ) -> dict[str, Tensor]:
        """Compute the losses, not weighted, and log the errors that :func:`detection_errors` says.

        Args:
            outputs: ``pred_logits`` (B, Q, K+1) and ``pred_boxes`` (B, Q, 4) of the last layer, and
                ``aux_outputs``, a list of such dicts of the layers before it.
            targets: one dict per image: ``labels`` (T,) int64 in [0, K) and ``boxes`` (T, 4). All
                boxes are cxcywh, relative to the image without padding.
            normalisers: scalars on the predictions' device, of all images that are averaged over,
                by the names of :meth:`normalisers`; see
                :func:`ddep.modeling.normalisers.average_over_processes`.

        Returns:
            Scalars ``loss_ce``, ``loss_bbox`` and ``loss_giou`` of the last layer, and the same
            names with the suffix ``_0``, ``_1``, ... of those before it. All predictions are in
            their graph even if there are no targets, as DistributedDataParallel needs. Where a
            matching cost of a layer is NaN or infinite, so is a loss of that layer.
        """
        layers = [*outputs["aux_outputs"], outputs] if self.num_aux_outputs else [outputs]
        labels = [target["labels"] for target in targets]
        boxes = torch.cat([target["boxes"] for target in targets])
        costs, pairs = self.match(layers, targets)
        with torch.autocast(pairs.images.device.type, enabled=False):
            loss_ce = self._classification_losses(layers, torch.cat(labels), pairs)
            loss_bbox, loss_giou = _box_losses(layers, boxes, pairs)
            # NaN for a layer with a cost that is not finite: the queries that were matched
            # instead may have finite losses.
            loss_bbox = loss_bbox + (costs * 0).sum((1, 2))
            num_boxes = normalisers["boxes"].float()
            losses = {
                "loss_ce": loss_ce / normalisers["class_weights"].float(),
                "loss_bbox": loss_bbox / num_boxes,
                "loss_giou": loss_giou / num_boxes,
            }
        storage = current_event_storage()
        if storage is not None:
            last = MatchedPairs(*(index[-1] for index in pairs))
            storage.put_scalars(**detection_errors(outputs["pred_logits"], labels, last))
        return self._by_name(losses)

    def match(
        self, layers: Sequence[dict[str, Tensor]], targets: Sequence[dict[str, Tensor]]
    ) -> tuple[Tensor, MatchedPairs]:
        """Match the predictions of layers to the targets.

        Args:
            layers: ``pred_logits`` and ``pred_boxes`` of each.
            targets: see :meth:`forward`.

        Returns:
            The matching costs (L, Q, sum of T), without gradients, and the pairs.
        """
        labels = [target["labels"] for target in targets]
        boxes = torch.cat([target["boxes"] for target in targets])
        costs = self.matcher.compute_costs(layers, labels, boxes)
        return costs, self._match(costs, labels)


def detection_errors(
    logits: Tensor, labels: Sequence[Tensor], pairs: MatchedPairs
) -> dict[str, float]:
    """How wrong the classes are, to look at: these are no losses.

    Args:
        logits: (B, Q, K+1).
        labels: (T,) int64 for each image.
        pairs: of one layer, (N,) each.

    Returns:
        ``cardinality_error``, the difference between the number of queries that predict an object
        and the number of objects, averaged over images; ``class_error``, the percentage of matched
        queries whose class is wrong, unless none is matched.
    """
    predicted = logits.argmax(-1)
    no_object = logits.shape[-1] - 1
    counts = torch.tensor([len(of_image) for of_image in labels], device=logits.device)
    found = (predicted != no_object).sum(1)
    is_wrong = predicted[pairs.images, pairs.queries] != torch.cat(labels)[pairs.targets]
    # One copy from the device, for which the host waits.
    cardinality, wrong = torch.stack(
        [(found - counts).abs().float().mean(), is_wrong.float().sum()]
    ).tolist()
    errors = {"cardinality_error": cardinality}
    if is_wrong.numel():
        errors["class_error"] = 100 * wrong / is_wrong.numel()
    return errors


def _box_losses(
    layers: Sequence[dict[str, Tensor]], boxes: Tensor, pairs: MatchedPairs
) -> tuple[Tensor, Tensor]:
    """Two of (L,): the L1 loss and the GIoU loss, summed over pairs."""
    predicted = torch.stack([outputs["pred_boxes"] for outputs in layers]).float()
    layer_index = torch.arange(len(layers), device=predicted.device)[:, None]
    matched, targets = predicted[layer_index, pairs.images, pairs.queries], boxes[pairs.targets]
    distances = F.l1_loss(matched, targets, reduction="none").sum((1, 2))
    # As in DETR without eps, which would change the loss of small relative boxes.
    overlaps = generalized_box_iou_loss(
        box_convert(matched, "cxcywh", "xyxy"), box_convert(targets, "cxcywh", "xyxy"), eps=0.0
    )
    return distances, overlaps.sum(1)
