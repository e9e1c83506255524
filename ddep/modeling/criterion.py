"""The training losses of mask classification with deep supervision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ddep.modeling.mask_losses import DenseMaskLosses, PointMaskLosses
from ddep.modeling.matcher import HungarianMatcher


class MatchedPairs(NamedTuple):
    """Matched predictions and targets of L layers, N pairs each; every field is (L, N) int64."""

    images: Tensor  # index into the batch
    queries: Tensor  # index into the image's queries
    targets: Tensor  # index into the concatenated targets of all images


class SetCriterion(nn.Module):
    """Classification, mask and dice losses of matched predictions (arXiv 2112.01527, section 4.1).

    The classification loss is a cross entropy in which the no-object class, the target of unmatched
    queries, weighs less.
    """

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
            no_object_weight: weight of the no-object class in the cross entropy.
            num_aux_outputs: how many earlier layers are also supervised.
        """
        super().__init__()
        self.num_classes = num_classes
        self.matcher = matcher
        self.mask_losses = mask_losses
        self.no_object_weight = no_object_weight
        self.num_aux_outputs = num_aux_outputs
        weights = {"loss_ce": class_weight, "loss_mask": mask_weight, "loss_dice": dice_weight}
        # The weight of every loss that forward returns, by its name.
        self.weight_dict = {
            name + suffix: weight
            for suffix in _suffixes(num_aux_outputs)
            for name, weight in weights.items()
        }
        empty_weight = torch.ones(num_classes + 1)
        empty_weight[-1] = no_object_weight
        self.register_buffer("empty_weight", empty_weight)

    def normalisers(self, num_targets: Sequence[int], num_queries: int) -> dict[str, float]:
        """What the losses of some images are averaged over.

        This is known before matching: an image with T targets has min(T, Q) matched queries in
        every layer.

        Args:
            num_targets: T of each image.
            num_queries: Q of each image.

        Returns:
            ``masks``, the number of targets, for the mask losses; ``class_weights``, the sum of the
            queries' class weights, for the cross entropy.
        """
        matched = sum(min(count, num_queries) for count in num_targets)
        unmatched = num_queries * len(num_targets) - matched
        class_weights = matched + self.no_object_weight * unmatched
        return {"masks": sum(num_targets), "class_weights": class_weights}

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
        pairs = self._match(costs, labels)
        with torch.autocast(pairs.images.device.type, enabled=False):
            loss_ce = self._classification_losses(layers, torch.cat(labels), pairs)
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
        return {
            name + suffix: losses_of_layers[layer]
            for layer, suffix in enumerate(_suffixes(len(layers) - 1))
            for name, losses_of_layers in losses.items()
        }

    def _match(self, costs: Tensor, labels: Sequence[Tensor]) -> MatchedPairs:
        num_targets = [len(of_image) for of_image in labels]
        first_targets = np.cumsum(num_targets) - num_targets
        pairs = np.stack(  # (3, L, N)
            [
                np.concatenate(
                    [
                        [np.full_like(queries, image), queries, matched + first_targets[image]]
                        for image, (queries, matched) in enumerate(matches)
                    ],
                    axis=1,
                )
                for matches in self.matcher(costs, num_targets)
            ],
            axis=1,
        )
        pairs = torch.from_numpy(pairs)
        return MatchedPairs(*pairs.to(costs.device, non_blocking=True))

    def _classification_losses(
        self, layers: Sequence[dict[str, Tensor]], labels: Tensor, pairs: MatchedPairs
    ) -> Tensor:
        """(L,): cross entropy weighted by class, summed over all queries."""
        logits = torch.stack([outputs["pred_logits"] for outputs in layers]).float()
        layer_index = torch.arange(len(layers), device=logits.device)[:, None]
        classes = torch.full(
            logits.shape[:-1], self.num_classes, dtype=torch.int64, device=logits.device
        )
        classes[layer_index, pairs.images, pairs.queries] = labels[pairs.targets]
        losses = F.cross_entropy(
            logits.flatten(0, -2), classes.flatten(), self.empty_weight, reduction="none"
        )
        return losses.view(len(layers), -1).sum(1)

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


def _suffixes(num_aux_outputs: int) -> list[str]:
    return [f"_{layer}" for layer in range(num_aux_outputs)] + [""]
