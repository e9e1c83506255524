"""Find and freeze the encoder of a model: the weights of the group ``backbone``."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from types import MethodType

from torch import nn

from ddep.checkpoint.groups import group_of, own_groups


def encoder_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters of the encoder of ``model``, by name; see :mod:`ddep.checkpoint.groups`."""
    own = own_groups(model)
    parameters = model.named_parameters()
    return {name: p for name, p in parameters if group_of(name, own) == "backbone"}


def encoder_modules(model: nn.Module) -> list[nn.Module]:
    """The largest modules of ``model`` whose weights all belong to the encoder or adapt it.

    That is the backbone or, where an FPN is around it, the FPN's ``bottom_up``.
    """
    return list(_encoder_modules_in(model, "", model))


def _encoder_modules_in(model: nn.Module, prefix: str, module: nn.Module) -> Iterator[nn.Module]:
    own = own_groups(model)
    weights = chain(module.named_parameters(prefix), module.named_buffers(prefix))
    groups = {group_of(name, own) for name, _ in weights}
    if "backbone" in groups <= {"backbone", "adapter"}:
        yield module
    elif "backbone" in groups:
        for name, child in module.named_children():
            yield from _encoder_modules_in(model, f"{prefix}.{name}" if prefix else name, child)


def freeze_encoder(model: nn.Module) -> None:
    """Freeze the encoder of ``model``, in place.

    Its parameters get no gradients, and its modules are in eval mode and stay there whoever calls
    ``train()`` on them or on ``model``. It keeps nothing for the backward pass unless its input
    needs a gradient. What adapts it (the group ``adapter``) learns.
    """
    for parameter in encoder_parameters(model).values():
        parameter.requires_grad_(False)
    for encoder in encoder_modules(model):
        encoder.eval()
        encoder.train = MethodType(_stay_in_eval_mode, encoder)


def _stay_in_eval_mode(encoder: nn.Module, mode: bool = True) -> nn.Module:
    """Replaces :meth:`torch.nn.Module.train` of a frozen encoder."""
    return encoder
