"""Resized weights against bicubic interpolation in float64."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from ddep.checkpoint.conversion.resizing import relative_position_index, resize
from ddep.errors import UserError
from ddep.modeling.backbone import D2SwinTransformer

TABLE = "backbone.layers.0.blocks.0.attn.relative_position_bias_table"


@pytest.mark.parametrize(("old", "new"), [(7, 12), (12, 7), (7, 8)])
def test_position_tables(old: int, new: int) -> None:
    rows, target = (2 * old - 1) ** 2, (2 * new - 1) ** 2
    table = torch.randn(rows, 3)
    found = resize(TABLE, table, (target, 3))
    for head in range(3):
        grid = table[:, head].double().view(1, 1, 2 * old - 1, 2 * old - 1)
        expected = F.interpolate(grid, size=(2 * new - 1,) * 2, mode="bicubic").flatten()
        torch.testing.assert_close(found[:, head].double(), expected, atol=1e-5, rtol=1e-5)
    half = resize(TABLE, table.half(), (target, 3))
    assert half.dtype == torch.float16
    torch.testing.assert_close(half.float(), found, atol=5e-3, rtol=5e-3)


def test_swins_absolute_embeddings() -> None:
    positions = torch.randn(1, 5, 14, 14)
    found = resize("backbone.absolute_pos_embed", positions, (1, 5, 24, 24))
    expected = F.interpolate(positions.double(), size=(24, 24), mode="bicubic")
    torch.testing.assert_close(found.double(), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("prefix", [0, 1, 2])
@pytest.mark.parametrize(("old", "new"), [(14, 24), (37, 14)])
def test_position_embeddings_keep_class_and_register_tokens(
    prefix: int, old: int, new: int
) -> None:
    positions = torch.randn(1, prefix + old**2, 5)
    found = resize("backbone.model.pos_embed", positions, (1, prefix + new**2, 5))
    assert torch.equal(found[:, :prefix], positions[:, :prefix])
    grid = positions[:, prefix:].double().view(1, old, old, 5).permute(0, 3, 1, 2)
    expected = F.interpolate(grid, size=(new, new), mode="bicubic", antialias=True)
    expected = expected.permute(0, 2, 3, 1).flatten(1, 2)
    torch.testing.assert_close(found[:, prefix:].double(), expected, atol=1e-5, rtol=1e-5)


def test_an_enlarged_patch_gives_the_same_output() -> None:
    kernel = torch.randn(4, 3, 14, 14)
    found = resize("backbone.model.patch_embed.proj.weight", kernel, (4, 3, 16, 16)).double()
    patches = torch.randn(6, 3, 14, 14, dtype=torch.float64)
    before = F.conv2d(patches, kernel.double())
    larger = F.interpolate(patches, size=(16, 16), mode="bicubic", antialias=True)
    torch.testing.assert_close(F.conv2d(larger, found), before, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("window", [1, 2, 7])
def test_the_index_of_positions_is_the_models(window: int) -> None:
    model = D2SwinTransformer(
        embed_dim=4, depths=(1, 1, 1, 1), num_heads=(1, 1, 1, 1), window_size=window
    )
    expected = model.layers[0].blocks[0].attn.relative_position_index
    assert torch.equal(relative_position_index(tuple(expected.shape)), expected)


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        (TABLE, (169, 3), (529, 4)),
        (TABLE, (168, 3), (529, 3)),
        (TABLE, (169,), (529, 3)),
        (TABLE, (0, 3), (529, 3)),
        ("backbone.absolute_pos_embed", (1, 196, 5), (1, 5, 24, 24)),
        ("backbone.absolute_pos_embed", (1, 6, 14, 14), (1, 5, 24, 24)),
        ("backbone.model.pos_embed", (1, 200, 5), (1, 197, 5)),
        ("backbone.model.pos_embed", (1, 197, 5), (1, 577, 6)),
        ("backbone.model.pos_embed", (197, 5), (1, 577, 5)),
        ("backbone.model.patch_embed.proj.weight", (4, 1, 14, 14), (4, 3, 16, 16)),
        ("backbone.model.patch_embed.proj.weight", (4, 3, 14), (4, 3, 16, 16)),
        ("backbone.model.blocks.0.mlp.fc1.weight", (4, 3), (4, 4)),
    ],
)
def test_nothing_else_is_resized(name: str, old: tuple, new: tuple) -> None:
    with pytest.raises(UserError, match=rf"^{name} is .* in the file and .* in the model; use a"):
        resize(name, torch.zeros(old), new)


def test_only_floating_point_weights_are_resized() -> None:
    with pytest.raises(UserError, match="use a config that describes the same model"):
        resize(TABLE, torch.zeros(169, 3, dtype=torch.int64), (529, 3))
