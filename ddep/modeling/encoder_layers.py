"""The layers of an encoder, numbered in the order that an image goes through them."""

from __future__ import annotations

from detectron2.modeling import ResNet
from torch import nn

from ddep.errors import UserError
from ddep.modeling.encoder import encoder_modules


def encoder_layers(model: nn.Module) -> dict[str, int]:
    """The layer of each parameter of the encoder of ``model``.

    A backbone with a method ``parameter_layers`` (name of a parameter -> layer) knows its own: the
    patch embedding or stem is 0, and each block is a layer. In detectron2's ResNets, which do not
    have it, each stage is one.

    Args:
        model: its encoder is one module; see :mod:`ddep.checkpoint.groups`.

    Returns:
        Full names of parameters -> layers, counted from 0 at the image.

    Raises:
        UserError: the layers are not known.
    """
    names = {module: name for name, module in model.named_modules()}
    encoders = encoder_modules(model)
    if len(encoders) != 1:
        raise _unknown(f"{type(model).__name__} has {len(encoders)} modules as its encoder")
    (encoder,) = encoders
    if isinstance(encoder, ResNet):
        layers = _resnet_layers(encoder)
    elif hasattr(encoder, "parameter_layers"):
        layers = encoder.parameter_layers()
    else:
        raise _unknown(f"{type(encoder).__name__} has no method parameter_layers")
    prefix = f"{names[encoder]}." if names[encoder] else ""
    return {prefix + name: layer for name, layer in layers.items()}


def _resnet_layers(resnet: ResNet) -> dict[str, int]:
    """``stem`` is 0, ``res2`` 1, ``res5`` 4."""
    order = ["stem", *resnet.stage_names]
    return {name: order.index(name.split(".")[0]) for name, _ in resnet.named_parameters()}


def _unknown(found: str) -> UserError:
    return UserError(
        f"SOLVER.LAYER_DECAY needs the layers of the encoder, but {found}; expected "
        "D2SwinTransformer, TimmBackbone or a ResNet; set SOLVER.LAYER_DECAY to 1.0"
    )
