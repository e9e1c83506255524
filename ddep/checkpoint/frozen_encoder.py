"""Checkpoints without the weights of a frozen encoder, which say where these are."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.utils import consume_prefix_in_state_dict_if_present

from ddep.checkpoint.groups import group_of, own_groups
from ddep.checkpoint.loading import StateDict, from_model_zoo, load_weights
from ddep.checkpoint.read_checkpoint import local_path, read_checkpoint
from ddep.errors import UserError

logger = logging.getLogger(__name__)

# What a checkpoint calls the encoder that it does not hold.
KEY = "encoder"
_ADVICE = "name the file with it in MODEL.BACKBONE.FROZEN_WEIGHTS"


class FrozenEncoder(NamedTuple):
    """An encoder whose weights are in another file than the rest of a model.

    Attributes:
        path: the file that training started from; absolute, or an address.
        sha256: of the weights, see :func:`checksum`.
        names: the names of the weights in the model.
    """

    path: str
    sha256: str
    names: frozenset[str]

    @classmethod
    def of(cls, model: nn.Module, path: str, loaded: Collection[str]) -> FrozenEncoder:
        """The encoder of ``model``, as far as its weights are from a file.

        Args:
            model: not wrapped in DistributedDataParallel.
            path: the file.
            loaded: names of the weights of ``model`` that are from it.
        """
        weights = encoder_weights(model)
        names = frozenset(weights.keys() & set(loaded))
        return cls(path, checksum({name: weights[name] for name in names}), names)

    def entry(self) -> dict[str, Any]:
        """What a checkpoint says about it."""
        return {"weights": self.path, "sha256": self.sha256, "number": len(self.names)}


def encoder_weights(model: nn.Module) -> StateDict:
    """The parameters and saved buffers of the encoder (the group ``backbone``), by name."""
    own = own_groups(model)
    return {
        name: tensor
        for name, tensor in model.state_dict().items()
        if group_of(name, own) == "backbone"
    }


def checksum(weights: Mapping[str, Tensor]) -> str:
    """The SHA-256 of the names below the encoder, shapes and numbers of ``weights``."""
    found = hashlib.sha256()
    for name in sorted(weights):
        tensor = weights[name].detach().cpu().contiguous()
        inner = name.removeprefix("backbone.").removeprefix("bottom_up.")
        found.update(f"{inner} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        found.update(tensor.view(-1).view(torch.uint8).numpy())
    return found.hexdigest()


def restore_encoder(
    model: nn.Module, checkpoint: dict[str, Any], path: str, chosen: str
) -> str | None:
    """Add the weights of the encoder that ``checkpoint`` needs, if it needs one, in place.

    Args:
        model: what the checkpoint is for. Its encoder gets the weights.
        checkpoint: as :func:`ddep.checkpoint.read_checkpoint` returns it.
        path: where it comes from.
        chosen: the file with the encoder (MODEL.BACKBONE.FROZEN_WEIGHTS); empty looks for it where
            the checkpoint says, then in the checkpoint's folder.

    Returns:
        The file with the encoder; None if the checkpoint needs none.

    Raises:
        UserError: there is no such file, or it holds another encoder.
    """
    entry = checkpoint.pop(KEY, None)
    if entry is None:
        if chosen:
            logger.warning(
                f"{path} holds its encoder: MODEL.BACKBONE.FROZEN_WEIGHTS {chosen} is not used"
            )
        return None
    file = chosen or _find(str(entry["weights"]), path)
    weights = checkpoint["model"]
    consume_prefix_in_state_dict_if_present(weights, "module.")
    own = own_groups(model)
    source = read_checkpoint(local_path(file))
    is_zoo = source.get("matching_heuristics", False)
    found = from_model_zoo(source, model) if is_zoo else source["model"]
    consume_prefix_in_state_dict_if_present(found, "module.")
    found = {name: tensor for name, tensor in found.items() if group_of(name, own) == "backbone"}
    try:
        loaded = load_weights(model, found, file).loaded if found else []
    except UserError as error:
        raise UserError(f"the frozen encoder of {path}: {error}; {_ADVICE}") from error
    needed = {name: t for name, t in encoder_weights(model).items() if name not in weights}
    absent = sorted(needed.keys() - set(loaded))
    if absent:
        raise UserError(
            f"{path} needs the frozen encoder that it was trained with, but {file} lacks "
            f"{len(absent)} of its weights, such as {absent[0]}; {_ADVICE}"
        )
    if checksum(needed) != entry["sha256"]:
        raise UserError(
            f"{path} was trained with the frozen encoder of {entry['weights']}, but {file} holds "
            f"another one: its checksum is not {str(entry['sha256'])[:12]}...; {_ADVICE}"
        )
    logger.info(f"{path} has no encoder: its frozen one is from {file}")
    weights.update(needed)
    return file


def _find(recorded: str, path: str) -> str:
    beside = os.path.join(os.path.dirname(path), os.path.basename(recorded))
    if os.path.isfile(recorded) or "://" in recorded:
        return recorded
    if os.path.isfile(beside):
        return beside
    raise UserError(
        f"{path} does not hold the frozen encoder that it was trained with, and neither {recorded} "
        f"nor {beside} exists; copy it there, or {_ADVICE}"
    )
