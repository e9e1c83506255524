"""The denoising head: shapes, names, and its output compared with a direct formula."""

from __future__ import annotations

import math

import pytest
import torch

from ddep.modeling.denoising_head import DenoisingHead


@pytest.fixture
def head() -> DenoisingHead:
    torch.manual_seed(0)
    return DenoisingHead(mask_dim=8, scale_dim=4)


def test_predicts_three_channels_at_four_times_the_resolution(head):
    assert head(torch.randn(2, 8, 6, 5)).shape == (2, 3, 24, 20)


def test_scales_are_named_by_their_stride(head):
    features = [torch.randn(2, 4, 96 // s, 64 // s) for s in (32, 16, 8)]
    shapes = {s: p.shape for s, p in head.predict_scales(features).items()}
    assert shapes == {s: (2, 3, 4 * 96 // s, 4 * 64 // s) for s in (32, 16, 8)}


def test_each_scale_has_its_own_head(head):
    features = [torch.randn(1, 4, size, size) for size in (1, 2, 4)]
    before = head.predict_scales(features)
    with torch.no_grad():
        head.multi_scale["s16"][2].bias += 1
    after = head.predict_scales(features)
    changed = {stride for stride in before if not torch.equal(before[stride], after[stride])}
    assert changed == {16}


def test_formula_in_float64(head):
    """3x3 convolution, GELU, LayerNorm over channels, and a linear map for each output pixel."""
    head = head.double()
    features = torch.randn(1, 8, 4, 5, dtype=torch.float64)
    output = head(features)
    # The place whose output pixels are computed by hand, away from the border.
    row, column = 2, 3
    patch = features[0, :, row - 1 : row + 2, column - 1 : column + 2]
    hidden = torch.einsum("oiyx,iyx->o", head.conv.weight, patch) + head.conv.bias
    hidden = hidden * (1 + torch.erf(hidden / math.sqrt(2))) / 2
    hidden = (hidden - hidden.mean()) / (hidden.var(unbiased=False) + head.norm.eps).sqrt()
    first, second = head.upsample
    for y in range(4):
        for x in range(4):
            middle = hidden @ first.weight[:, :, y // 2, x // 2] + first.bias
            expected = middle @ second.weight[:, :, y % 2, x % 2] + second.bias
            torch.testing.assert_close(output[0, :, 4 * row + y, 4 * column + x], expected)


def test_scale_formula_in_float64(head):
    """Two layers at each place separately; 48 channels become 4 x 4 pixels of 3 channels."""
    head = head.double()
    features = [torch.randn(1, 4, size, size, dtype=torch.float64) for size in (1, 2, 4)]
    output = head.predict_scales(features)[8]
    first, _, second, _ = head.multi_scale["s8"]
    row, column = 3, 1
    hidden = first.weight[:, :, 0, 0] @ features[2][0, :, row, column] + first.bias
    hidden = hidden * (1 + torch.erf(hidden / math.sqrt(2))) / 2
    expected = (second.weight[:, :, 0, 0] @ hidden + second.bias).view(3, 4, 4)
    cell = output[0, :, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4]
    torch.testing.assert_close(cell, expected)


def test_parameter_names(head):
    modules = {name.rsplit(".", 1)[0] for name, _ in head.named_parameters()}
    scales = {f"multi_scale.s{s}.{layer}" for s in (8, 16, 32) for layer in (0, 2)}
    assert modules == {"conv", "norm", "upsample.0", "upsample.1"} | scales


def test_without_scales_there_are_no_heads_for_them():
    head = DenoisingHead(mask_dim=12, scale_dim=None)
    assert head.conv.in_channels == 12
    assert len(head.multi_scale) == 0
