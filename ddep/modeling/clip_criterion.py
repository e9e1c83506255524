"""Matching and losses of clips: an object has a mask in each frame, and one query for all.

Mask2Former for videos (Cheng et al., 2021, arXiv 2112.10764, section 3.2) compares clips in the
matching, and each frame for itself in the losses. Predictions are (B, Q, T, h, w) logits, targets
(N, T, H, W) bool or uint8: in frames without the object all False.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from ddep.modeling.criterion import SetCriterion
from ddep.modeling.mask_costs import PointMaskCosts
from ddep.modeling.matching_criterion import MatchedPairs
from ddep.ops.mask_costs_reference import pairwise_dice_loss, pairwise_sigmoid_cross_entropy
from ddep.ops.point_sampling_reference import sample_masks


class ClipMaskCosts(PointMaskCosts):
    """Binary cross entropy and dice loss at points of all frames together.

    The points are drawn uniformly, and are the same in all frames of a clip and for all masks. The
    cross entropy is the mean over points and frames; the dice loss counts the points of all frames
    as one mask.
    """

    def __call__(
        self, mask_logits: Sequence[Tensor], masks: Tensor, num_targets: Sequence[int]
    ) -> tuple[Tensor, Tensor]:
        """Compare every query with every target of its clip.

        Args:
            mask_logits: of L layers, (B, Q, T, h, w) each.
            masks: (N, T, H, W), the targets of all clips side by side.
            num_targets: how many each clip has.

        Returns:
            Cross entropy and dice loss, (L, Q, N) float32 each.
        """
        points = self.draw_points(len(num_targets), masks.device)
        costs = [
            self._costs_of_clip([layer[clip] for layer in mask_logits], targets, of_clip)
            for clip, (targets, of_clip) in enumerate(
                zip(masks.split(list(num_targets)), points, strict=True)
            )
        ]
        cross_entropy, dice = zip(*costs, strict=True)
        return torch.cat(cross_entropy, -1), torch.cat(dice, -1)

    def _costs_of_clip(
        self, mask_logits: Sequence[Tensor], masks: Tensor, points: Tensor
    ) -> tuple[Tensor, Tensor]:
        """L of (Q, T, h, w), (N, T, H, W) and (P, 2) -> two of (L, Q, N)."""
        num_targets, num_frames = masks.shape[:2]
        rows = torch.arange(num_targets * num_frames, device=masks.device)
        labels = sample_masks(masks.flatten(0, 1), rows, points.expand(len(rows), -1, -1))
        labels = labels.view(num_targets, num_frames * len(points))
        cross_entropy, dice = [], []
        for logits in mask_logits:  # one layer at a time: Q * T * P numbers
            grid = (2 * points - 1).expand(len(logits), 1, -1, 2)  # grid_sample's [-1, 1]
            sampled = F.grid_sample(logits.float(), grid, align_corners=False).flatten(1)
            cross_entropy.append(pairwise_sigmoid_cross_entropy(sampled, labels))
            dice.append(pairwise_dice_loss(sampled, labels))
        return torch.stack(cross_entropy), torch.stack(dice)


class ClipCriterion(SetCriterion):
    """The losses of :class:`SetCriterion`, of clips.

    Every frame of a matched object has a mask loss and a dice loss, at points of its own. They are
    summed over frames and divided by the number of objects, so that long clips have large ones.
    """

    def _mask_losses(
        self, layers: Sequence[dict[str, Tensor]], masks: Tensor, pairs: MatchedPairs
    ) -> tuple[Tensor, Tensor]:
        # The mask of a query in a frame counts as that of a query of its own.
        num_frames = masks.shape[1]
        frames = torch.arange(num_frames, device=masks.device)

        def of_frames(index: Tensor) -> Tensor:
            return (index[..., None] * num_frames + frames).flatten(-2)

        return super()._mask_losses(
            [{"pred_masks": outputs["pred_masks"].flatten(1, 2)} for outputs in layers],
            masks.flatten(0, 1),
            MatchedPairs(
                images=pairs.images.repeat_interleave(num_frames, dim=-1),
                queries=of_frames(pairs.queries),
                targets=of_frames(pairs.targets),
            ),
        )
