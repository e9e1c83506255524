"""Models of timm (PyTorch Image Models): how they are built, and which features are taken."""

from __future__ import annotations

import difflib
from typing import Any

import timm
from torch import nn

from ddep.errors import UserError

STRIDES = {"res2": 4, "res3": 8, "res4": 16, "res5": 32}


def check_options(name: str, drop_path_rate: float, patch_size: int) -> None:
    """Raise :class:`UserError` for a name or a value that timm cannot have."""
    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), n=3)
        hint = f"did you mean {', '.join(near)}?" if near else "timm.list_models() names them all"
        raise UserError(f"MODEL.DDEP.TIMM.NAME {name} is not a model of timm; {hint}")
    if not 0 <= drop_path_rate < 1:
        raise UserError(
            f"MODEL.DDEP.TIMM.DROP_PATH_RATE is {drop_path_rate}; expected at least 0 and below 1"
        )
    if patch_size < 0:
        raise UserError(f"MODEL.DDEP.TIMM.PATCH_SIZE is {patch_size}; expected pixels, or 0")


def create(name: str, in_channels: int, chosen: dict[str, Any]) -> nn.Module:
    """Build a model of timm with random weights, for images of any size if it can.

    Args:
        name: timm's name.
        in_channels: channels of the images.
        chosen: ``drop_path_rate`` and ``patch_size``, if they are not the model's own.

    Raises:
        UserError: the model does not have what is chosen.
    """
    options = {"pretrained": False, "in_chans": in_channels, **chosen}
    try:
        try:
            return timm.create_model(name, dynamic_img_size=True, **options)
        except TypeError as error:
            # Models without absolute position embeddings do not have the option.
            if "dynamic_img_size" not in str(error):
                raise
            return timm.create_model(name, **options)
    except TypeError as error:
        unknown = next((option for option in chosen if option in str(error)), None)
        if unknown is None:
            raise
        what = {"drop_path_rate": "stochastic depth", "patch_size": "patches"}[unknown]
        raise UserError(
            f"MODEL.DDEP.TIMM.{unknown.upper()} is {chosen[unknown]}, but {name} has no {what};"
            " set it to 0"
        ) from error


def choose_features(
    name: str, strides: list[int], chosen: list[int]
) -> tuple[list[int], int | None]:
    """The indices of the features to take, and the patch size of a plain model (else None).

    Args:
        name: of the model.
        strides: of all its features.
        chosen: MODEL.DDEP.TIMM.OUT_INDICES.

    Raises:
        UserError: it has no features at the strides of STRIDES, or no such indices.
    """
    is_plain = len(strides) >= 4 and len(set(strides)) == 1
    if not is_plain and not set(STRIDES.values()) <= set(strides):
        raise UserError(
            f"MODEL.DDEP.TIMM.NAME {name} has features at strides {', '.join(map(str, strides))};"
            " expected 4, 8, 16 and 32 among them, or four or more blocks of one stride"
        )
    if chosen:
        _check_indices(name, strides, chosen, is_plain)
    elif is_plain:
        chosen = [len(strides) * part // 4 - 1 for part in (1, 2, 3, 4)]
    else:
        chosen = [strides.index(stride) for stride in STRIDES.values()]
    return chosen, strides[0] if is_plain else None


def _check_indices(name: str, strides: list[int], chosen: list[int], is_plain: bool) -> None:
    found = f"MODEL.DDEP.TIMM.OUT_INDICES is {chosen}"
    in_order = len(chosen) == 4 and sorted(set(chosen)) == chosen
    if not in_order or chosen[0] < 0 or chosen[-1] >= len(strides):
        raise UserError(
            f"{found}; expected four increasing numbers from 0 to {len(strides) - 1} for {name}"
        )
    chosen_strides = [strides[index] for index in chosen]
    if not is_plain and chosen_strides != list(STRIDES.values()):
        raise UserError(
            f"{found}, features of {name} at strides {chosen_strides}; expected 4, 8, 16 and 32: "
            f"those of all its features are {strides}"
        )
