"""The training losses of mask classification with deep supervision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from ddep.modeling.mask_losses import DenseMaskLosses, PointMaskLosses
from ddep.modeling.matcher import HungarianMatcher
from ddep.modeling.matching_criterion import MatchedPairs, MatchingCriterion


class SetCriterion(MatchingCriterion):
    """Classification, mask and dice losses of matched predictions (arXiv 2112.01527, section 4.1).

    The classification loss is :class:`MatchingCriterion`'s.
    """

    targets_name: ClassVar = "masks"

    def __init__(
        self,
        num_classes: int,
        *,
        matcher: HungarianMatcher,
        mask_losses: PointMaskLosses | DenseMaskLosses,
        class_weight: float,
        mask_weight: float,
        dice_weight: float,
        no_object_weight: float,
        num_aux_outputs: int,
    ) -> None:
        """
        Args:
            num_classes: K, without the no-object class.
            matcher: assigns queries to targets.
            mask_losses: see :mod:`ddep.modeling.mask_losses`.
            class_weight, mask_weight, dice_weight: the values of ``weight_dict``, by which the
                caller multiplies the losses.
            no_object_weight, num_aux_outputs: see :class:`MatchingCriterion`.
        """
        weights = {"loss_ce": class_weight, "loss_mask": mask_weight, "loss_dice": dice_weight}
        super().__init__(
            num_classes,
            matcher=matcher,
            weights=weights,
            no_object_weight=no_object_weight,
            num_aux_outputs=num_aux_outputs,
        )
        self.mask_losses = mask_losses

    def forward(
        self,
        outputs: dict[str, Any],
        targets: Sequence[dict[str, Tensor]],
        normalisers: Mapping[str, Tensor],
    ) -> dict[str, Tensor]:
        """Compute the losses, not weighted.

        Args:
            outputs: ``pred_logits`` (B, Q, K+1) and ``pred_masks`` (B, Q, h, w), logits of the last
                layer, and ``aux_outputs``, a list of such dicts of the layers before it.
            targets: one dict per image: ``labels`` (T,) int64 in [0, K) and ``masks`` (T, H, W)
                bool or uint8, padded to the batch's size.
            normalisers: scalars on the predictions' device, of all images that are averaged over,
                by the names of :meth:`normalisers`; see
                :func:`ddep.modeling.normalisers.average_over_processes`.

        Returns:
            Scalars ``loss_ce``, ``loss_mask`` and ``loss_dice`` of the last layer, and the same
            names with the suffix ``_0``, ``_1``, ... of those before it. All predictions are in
            their graph even if there are no targets, as DistributedDataParallel needs. Where a
            matching cost of a layer is NaN or infinite, so is a loss of that layer.
        """
        layers = [*outputs["aux_outputs"], outputs] if self.num_aux_outputs else [outputs]
        labels = [target["labels"] for target in targets]
        masks = torch.cat([target["masks"] for target in targets])
        costs = self.matcher.compute_costs(layers, labels, masks)
        pairs = self._match_targets(costs, targets)
        with torch.autocast(pairs.images.device.type, enabled=False):
            loss_ce = self._class_losses(layers, targets, pairs)
            loss_mask, loss_dice = self._mask_losses(layers, masks, pairs)
            # NaN for a layer with a cost that is not finite: the queries that were matched
            # instead may have finite losses.
            loss_mask = loss_mask + (costs * 0).sum((1, 2))
            num_masks = normalisers["masks"].float()
            losses = {
                "loss_ce": loss_ce / normalisers["class_weights"].float(),
                "loss_mask": loss_mask / num_masks,
                "loss_dice": loss_dice / num_masks,
            }
        return self._by_name(losses)

    def _match_targets(self, costs: Tensor, targets: Sequence[dict[str, Tensor]]) -> MatchedPairs:
        return self._match(costs, [target["labels"] for target in targets])

    def _class_losses(
        self,
        layers: Sequence[dict[str, Tensor]],
        targets: Sequence[dict[str, Tensor]],
        pairs: MatchedPairs,
    ) -> Tensor:
        """(L,): weighted cross entropy, summed over all queries."""
        labels = torch.cat([target["labels"] for target in targets])
        return self._classification_losses(layers, labels, pairs)

    def _mask_losses(
        self, layers: Sequence[dict[str, Tensor]], masks: Tensor, pairs: MatchedPairs
    ) -> tuple[Tensor, Tensor]:
        """Two of (L,): the mask loss and the dice loss, summed over pairs."""
        # The backward pass needs the matched masks: a copy of them lets those of all queries go.
        matched = [  # L of (1, N, h, w)
            outputs["pred_masks"][images, queries][None]
            for outputs, images, queries in zip(layers, pairs.images, pairs.queries, strict=True)
        ]
        rows = torch.arange(pairs.queries.shape[1], device=pairs.queries.device)
        loss_mask, loss_dice = self.mask_losses(
            matched,
            torch.zeros_like(pairs.images),
            rows.expand_as(pairs.queries),
            masks,
            pairs.targets,
        )
        return loss_mask.sum(1), loss_dice.sum(1)
