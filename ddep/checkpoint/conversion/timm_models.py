"""Weights of timm's models (PyTorch Image Models) for ``TimmBackbone``."""

from __future__ import annotations

from typing import Any

import timm

from ddep.checkpoint.conversion.entries import Entries, Settings, Weights, renamed
from ddep.checkpoint.conversion.imagenet import MEAN, STD, input_config


def entries(weights: Weights, heads: tuple[str, ...] = ()) -> Entries:
    """All weights under their own names, below ``backbone.model.``.

    Args:
        weights: the source.
        heads: prefixes of the weights that only classification needs, which are left out.
    """
    return renamed(
        weights, lambda name: None if name.startswith(heads) else f"backbone.model.{name}"
    )


def config(settings: Settings, guess: str | None) -> dict[str, Any]:
    """The config keys for a model of timm; empty if it has no name.

    Args:
        settings: may name the model as ``architecture``, as timm's own config.json does.
        guess: timm's name of the model otherwise.
    """
    architecture = settings.get("architecture")
    name = architecture if isinstance(architecture, str) else guess
    if name is None or not timm.is_model(name):
        return {}
    pretrained = timm.get_pretrained_cfg(name)
    mean, std = (pretrained.mean, pretrained.std) if pretrained else (MEAN, STD)
    return {
        "MODEL.BACKBONE.NAME": "TimmBackbone",
        "MODEL.DDEP.TIMM.NAME": name,
        **input_config(settings, mean, std),
    }
