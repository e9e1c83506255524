from __future__ import annotations

import pytest
import torch

from ddep.checkpoint.conversion.name_table import NameTable
from ddep.errors import UserError

TABLE = NameTable(
    [
        ("layers.#.block#.norm1.*", "stages.#.#.before.*"),
        ("layers.#.qkv.*", ("stages.#.query.*", "stages.#.key.*", "stages.#.value.*")),
        ("in_proj_*", ("q_proj.*", "k_proj.*")),
        ("level_embed", "level_embed"),
    ]
)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("layers.3.block12.norm1.running_mean", ("stages.3.12.before.running_mean",)),
        (
            "layers.0.qkv.bias",
            ("stages.0.query.bias", "stages.0.key.bias", "stages.0.value.bias"),
        ),
        ("in_proj_weight", ("q_proj.weight", "k_proj.weight")),
        ("level_embed", ("level_embed",)),
    ],
)
def test_names_both_ways(ours: str, theirs: tuple[str, ...]) -> None:
    assert TABLE.theirs(ours) == theirs
    assert {TABLE.ours(name) for name in theirs} == {ours}


@pytest.mark.parametrize("name", ["layers.x.qkv.bias", "xlevel_embed", "level_embeds", ""])
def test_other_names(name: str) -> None:
    assert TABLE.ours(name) is None
    assert TABLE.theirs(name) == ()


def test_parts_are_concatenated_in_the_tables_order() -> None:
    weights = {
        "k_proj.bias": torch.tensor([3.0, 4.0]),
        "q_proj.bias": torch.tensor([1.0, 2.0]),
        "level_embed": torch.tensor([5.0]),
        "stages.0.0.before.num_batches_tracked": torch.tensor(7),
        "other": torch.tensor([6.0]),
    }
    entries = TABLE.entries(weights)
    assert entries.keys() == {"in_proj_bias", "level_embed"}
    assert entries["in_proj_bias"].tensor.tolist() == [1.0, 2.0, 3.0, 4.0]
    assert entries["in_proj_bias"].sources == ("q_proj.bias", "k_proj.bias")
    assert entries["level_embed"].sources == ("level_embed",)


def test_a_part_is_missing() -> None:
    with pytest.raises(UserError, match="q_proj.bias is not in the file"):
        TABLE.entries({"k_proj.bias": torch.ones(2)})


@pytest.mark.parametrize("shape", [(), (3, 2)])
def test_parts_of_different_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(UserError, match="belong together have different shapes: q_proj.bias is"):
        TABLE.entries({"q_proj.bias": torch.ones(2), "k_proj.bias": torch.ones(shape)})
