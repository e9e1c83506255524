"""Focal and dice loss in plain PyTorch, compared with formulas and Hugging Face's functions."""

from __future__ import annotations

import numpy as np
import torch
from transformers.models.maskformer import modeling_maskformer as hugging_face

from ddep.ops.mask_losses_reference import dice_loss, sigmoid_focal_loss


def focal(logits: np.ndarray, masks: np.ndarray) -> float:
    """RetinaNet's equation 5, from the probabilities."""
    p = 1 / (1 + np.exp(-logits))
    p_t = np.where(masks, p, 1 - p)
    alpha_t = np.where(masks, 0.25, 0.75)
    return (-alpha_t * (1 - p_t) ** 2 * np.log(p_t)).mean()


def test_focal_loss_against_the_formula_and_hugging_face() -> None:
    logits = 4 * torch.randn(5, 300)
    masks = torch.rand(5, 300) > torch.rand(5, 1)
    losses = sigmoid_focal_loss(logits, masks)
    expected = [focal(*pair) for pair in zip(logits.double().numpy(), masks.numpy(), strict=True)]
    np.testing.assert_allclose(losses, expected, rtol=1e-5)
    reference = hugging_face.sigmoid_focal_loss(logits, masks.float(), 3)
    torch.testing.assert_close(losses.sum() / 3, reference)


def test_focal_loss_of_certain_predictions_is_finite() -> None:
    logits = torch.tensor([[90.0, -90.0]], requires_grad=True)
    right = sigmoid_focal_loss(logits, torch.tensor([[True, False]]))
    wrong = sigmoid_focal_loss(logits, torch.tensor([[False, True]]))
    torch.testing.assert_close(right, torch.zeros(1))
    torch.testing.assert_close(wrong, torch.tensor([(0.75 + 0.25) * 90 / 2]))
    (right + wrong).sum().backward()
    assert logits.grad.isfinite().all()


def test_dice_loss_of_perfect_empty_and_opposite_masks() -> None:
    masks = torch.tensor([[1.0, 1, 0, 0], [0, 0, 0, 0], [1, 1, 1, 0]])
    logits = torch.tensor([[50.0, 50, -50, -50], [-50, -50, -50, -50], [-50, -50, -50, 50]])
    torch.testing.assert_close(dice_loss(logits, masks), torch.tensor([0.0, 0.0, 1 - 1 / 5]))
