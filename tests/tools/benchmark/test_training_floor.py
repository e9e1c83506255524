"""The floor of a computation: which products are found, and how they are timed."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import training_floor
from training_floor import Products


def test_flops_and_time_of_a_training_step() -> None:
    linear = nn.Linear(64, 32)
    convolution = nn.Conv2d(3, 8, kernel_size=3, bias=False)
    with Products() as products:
        linear(torch.randn(16, 64).requires_grad_()).relu().sum().backward()
        convolution(torch.randn(1, 3, 10, 10)).sum().backward()
    # The gradients of a Linear's weight and input are products of the same size as its output; the
    # convolution's input needs none.
    of_linear = 3 * 2 * 16 * 64 * 32
    of_convolution = 2 * 2 * (8 * 8) * 8 * (3 * 3 * 3)
    floor = products.floor()
    assert floor.flops == of_linear + of_convolution
    assert 0 < floor.seconds < 1


def test_products_are_repeated_with_equal_layout(monkeypatch: pytest.MonkeyPatch) -> None:
    results = []

    def one_second(call: Callable[[], torch.Tensor]) -> float:
        results.append(call())
        return 1.0

    monkeypatch.setattr(training_floor, "_fastest", one_second)
    left, right = torch.randn(4, 6), torch.randn(4, 5)
    with Products() as products:
        for _ in range(3):
            left.t() @ right
        left.t().contiguous() @ right  # another layout
        left.bfloat16().t() @ right.bfloat16()
        (left + 1).exp()
    assert products.floor().seconds == 5
    assert [(result.shape, result.dtype) for result in results] == [
        ((6, 5), torch.float32),
        ((6, 5), torch.float32),
        ((6, 5), torch.bfloat16),
    ]


def test_fused_attention_is_a_product() -> None:
    query, key, value = torch.randn(3, 1, 2, 16, 8)
    with Products() as products:
        F.scaled_dot_product_attention(query, key, value)
    assert products.floor().flops == 2 * 2 * 2 * 16 * 16 * 8
