"""Checks of what adapts a frozen encoder: MODEL.REIN and MODEL.LORA."""

from __future__ import annotations

from detectron2.config import CfgNode

from ddep.config import get_key
from ddep.errors import UserError

# The lowest value of each key. The first of Rein's tokens has no value.
_LOWEST = {"MODEL.REIN.TOKENS": 2, "MODEL.REIN.RANK": 1, "MODEL.LORA.RANK": 0}


def has_adapters(cfg: CfgNode) -> bool:
    """Whether the config adapts the encoder."""
    return cfg.MODEL.REIN.ENABLED or cfg.MODEL.LORA.RANK != 0


def check_adapters(cfg: CfgNode) -> None:
    """Check MODEL.REIN and MODEL.LORA, but for the queries that are linked to Rein's tokens.

    Raises:
        UserError: a value out of range, a backbone that cannot have them, or one that is not
            frozen.
    """
    for key, lowest in _LOWEST.items():
        if get_key(cfg, key) < lowest:
            raise UserError(f"{key} is {get_key(cfg, key)}; expected at least {lowest}")
    if not has_adapters(cfg):
        return
    rein, backbone = cfg.MODEL.REIN.ENABLED, cfg.MODEL.BACKBONE
    found = "MODEL.REIN.ENABLED is True" if rein else f"MODEL.LORA.RANK is {cfg.MODEL.LORA.RANK}"
    if backbone.NAME != "TimmBackbone":
        raise UserError(
            f"{found}, but MODEL.BACKBONE.NAME is {backbone.NAME}; expected TimmBackbone, with a "
            "plain vision transformer"
        )
    if not backbone.FREEZE:
        raise UserError(
            f"{found}, but MODEL.BACKBONE.FREEZE is False; set it to True, because what is adapted "
            "is a frozen encoder"
        )
