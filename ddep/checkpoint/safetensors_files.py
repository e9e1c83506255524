"""Read safetensors: one file, or several that an index names."""

from __future__ import annotations

import os

import torch
from safetensors.torch import load_file

from ddep.checkpoint.settings import read_json
from ddep.errors import UserError


def load_safetensors(path: str) -> dict[str, torch.Tensor]:
    """Load a ``.safetensors`` file, or all files that a ``.safetensors.index.json`` names.

    The library compares the header with the file before it allocates memory.

    Raises:
        UserError: the index is damaged, or one of its files is missing.
        Exception: of nearly any type, if a file is damaged or of another kind.
    """
    if not path.endswith(".index.json"):
        return load_file(path)
    folder = os.path.dirname(path)
    weight_map = read_json(path).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise UserError(f"{path} has no weight_map; expected an index of safetensors files")
    weights: dict[str, torch.Tensor] = {}
    for name in sorted({str(name) for name in weight_map.values()}):
        shard = os.path.join(folder, name)
        if name != os.path.basename(name) or not os.path.isfile(shard):
            raise UserError(f"{path} names {name}, which is not in its folder; copy it there")
        weights |= load_file(shard)
    absent = [name for name in weight_map if name not in weights]
    if absent:
        raise UserError(f"{path} names {absent[0]}, which is in none of its files; copy them again")
    return weights
