"""The methods by the values of MODEL.ADAPTATION.METHOD."""

from __future__ import annotations

from detectron2.config import CfgNode

from ddep.adaptation.method import Method
from ddep.errors import UserError

METHODS: dict[str, type[Method]] = {}


def register_method(method: type[Method]) -> type[Method]:
    """Class decorator that registers a method under its ``name``."""
    METHODS[method.name] = method
    return method


def adapts(cfg: CfgNode) -> bool:
    """Whether training uses target images."""
    return bool(cfg.MODEL.ADAPTATION.METHOD)


def method_of(cfg: CfgNode) -> type[Method]:
    """The class of MODEL.ADAPTATION.METHOD.

    Raises:
        UserError: there is none of this name.
    """
    name = cfg.MODEL.ADAPTATION.METHOD
    if name not in METHODS:
        raise UserError(
            f"MODEL.ADAPTATION.METHOD is {name!r}; expected one of {', '.join(METHODS)}"
        )
    return METHODS[name]
