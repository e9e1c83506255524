"""The weights that a format finds in a checkpoint, with the names of their sources."""

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
        sources: the name or names in the source that it is made of.
        tensor: the weight as the model has it, except for its size.
    """

    sources: tuple[str, ...]
    tensor: torch.Tensor


# Name in the whole model -> its weight and where that comes from.
Entries = dict[str, Entry]


def renamed(weights: Weights, target_name: Callable[[str], str | None]) -> Entries:
    """Make entries that rename each weight and change nothing else.

    Args:
        weights: the source.
        target_name: name in the source -> name in the whole model, or None to leave it out.

    Raises:
        UserError: two weights get the same name.
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
    """Make an entry of several weights, concatenated along the first axis (query, key, value).

    Raises:
        UserError: one of them is missing, or their shapes do not fit together.
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
        name: the name of one of them.
        dimensions: the number of its dimensions; None allows any number.

    Raises:
        UserError: it is missing, has another number of dimensions, or has no elements.
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
    """The number of submodules of ``start`` (which ends with a dot), such as a stage's blocks."""
    return len({name[len(start) :].split(".")[0] for name in weights if name.startswith(start)})
