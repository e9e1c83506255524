"""What a format says about a checkpoint: which weights of the model it holds, and made of what."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch

from ddep.errors import UserError

Weights = dict[str, torch.Tensor]
# The content of the config.json beside the weights; empty if there is none.
Settings = dict[str, Any]


@dataclass(frozen=True)
class Entry:
    """One weight of the model.

    Attributes:
        sources: names in the source of what it is made of, one or several.
        tensor: the weight, as the model has it but for its size.
    """

    sources: tuple[str, ...]
    tensor: torch.Tensor


# Name in the whole model -> where its weight comes from.
Entries = dict[str, Entry]


def renamed(weights: Weights, target_name: Callable[[str], str | None]) -> Entries:
    """Entries that take each weight as it is.

    Args:
        weights: the source.
        target_name: the name in the whole model of a name in the source; None has no place there.

    Raises:
        UserError: two weights have the same place.
    """
    entries: Entries = {}
    for name, tensor in weights.items():
        target = target_name(name)
        if target is None:
            continue
        if target in entries:
            raise UserError(
                f"{entries[target].sources[0]} and {name} would both become {target}; the file is "
                "damaged, or mixes two formats: get it again"
            )
        entries[target] = Entry((name,), tensor)
    return entries


def joined(weights: Weights, sources: Iterable[str]) -> Entry:
    """An entry of several weights, one below the other along the first axis (query, key, value).

    Raises:
        UserError: one of them is not there, or their shapes do not go together.
    """
    sources = tuple(sources)
    tensors = [find(weights, name) for name in sources]
    if len({tensor.shape[1:] for tensor in tensors}) > 1 or not all(t.ndim for t in tensors):
        shapes = ", ".join(
            f"{n} is {tuple(t.shape)}" for n, t in zip(sources, tensors, strict=True)
        )
        raise UserError(f"weights that belong together have different shapes: {shapes}")
    return Entry(sources, torch.cat(tensors))


def find(weights: Weights, name: str, dimensions: int | None = None) -> torch.Tensor:
    """The weight called ``name``.

    Args:
        weights: the source.
        name: of one of them.
        dimensions: how many it must have; None is any number.

    Raises:
        UserError: there is none, or it has another number of dimensions or no elements.
    """
    if name not in weights:
        raise UserError(f"{name} is not in the file, but others that go with it are; get it again")
    tensor = weights[name]
    if dimensions is not None and (tensor.ndim != dimensions or not tensor.numel()):
        raise UserError(
            f"{name} has shape {tuple(tensor.shape)}; expected {dimensions} dimensions, none empty"
        )
    return tensor


def children(weights: Weights, start: str) -> int:
    """The number of submodules of ``start`` (which ends with a dot): blocks of a stage."""
    return len({name[len(start) :].split(".")[0] for name in weights if name.startswith(start)})
