"""An image with the classes that it has, or that a model gives it."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

# No more probabilities are drawn, the highest first, and no more names without one.
MAX_LISTED = 5
MAX_NAMES = 9
# In pixels: side of the square that holds the image, width of the list beside it, height of a line,
# and margin.
_SIDE, _LIST, _LINE, _MARGIN = 240, 280, 24, 12
# Height of letters and of bars.
_TEXT, _BAR = 18, 6
_RIGHT, _WRONG, _UNKNOWN = (40, 140, 60), (190, 50, 50), (60, 100, 180)


def draw_classes(image: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """Draw an image with the names of its classes beside it.

    Args:
        image: (H, W, 3) uint8, RGB.
        names: of its classes; the first nine are drawn.

    Returns:
        (240, 520, 3) uint8, RGB.
    """
    picture, draw = _canvas(image)
    lines = list(names) or ["(no class)"]
    if len(lines) > MAX_NAMES:
        lines[MAX_NAMES - 1 :] = [f"and {len(lines) - MAX_NAMES + 1} more"]
    for row, name in enumerate(lines):
        _write(draw, _MARGIN + row * _LINE, name, (0, 0, 0))
    return np.asarray(picture)


def draw_probabilities(
    image: np.ndarray,
    probabilities: torch.Tensor,
    class_names: Sequence[str],
    true: Collection[int] | None,
) -> np.ndarray:
    """Draw an image with its most probable classes beside it.

    Args:
        image: (H, W, 3) uint8, RGB.
        probabilities: (K,), of the classes.
        class_names: by class; classes without a name are called by their number.
        true: the image's classes, which are drawn in green, and others in red; None if they are not
            known.

    Returns:
        (240, 520, 3) uint8, RGB.
    """
    picture, draw = _canvas(image)
    best = probabilities.float().cpu().topk(min(MAX_LISTED, len(probabilities)))
    for row, (share, number) in enumerate(
        zip(best.values.tolist(), best.indices.tolist(), strict=True)
    ):
        colour = _UNKNOWN
        if true is not None:
            colour = _RIGHT if number in true else _WRONG
        name = class_name(class_names, number)
        top = _MARGIN + row * (_LINE + _BAR + _MARGIN)
        _write(draw, top, f"{100 * share:3.0f} %  {name}", colour)
        left = _SIDE + _MARGIN
        right = left + round(share * (_LIST - 2 * _MARGIN))
        draw.rectangle((left, top + _LINE, max(left, right), top + _LINE + _BAR), colour)
    return np.asarray(picture)


def class_name(names: Sequence[str], number: int) -> str:
    """What class ``number`` is called; a class without a name is called by its number."""
    return names[number] if number < len(names) else f"class {number}"


def _canvas(image: np.ndarray) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    """A white picture with the image on the left, enlarged or reduced to the square."""
    shown = Image.fromarray(image)
    scale = _SIDE / max(shown.size)
    width, height = (max(1, round(side * scale)) for side in shown.size)
    picture = Image.new("RGB", (_SIDE + _LIST, _SIDE), "white")
    place = ((_SIDE - width) // 2, (_SIDE - height) // 2)
    picture.paste(shown.resize((width, height), Image.Resampling.BILINEAR), place)
    return picture, ImageDraw.Draw(picture)


def _write(draw: ImageDraw.ImageDraw, top: int, text: str, colour: tuple[int, int, int]) -> None:
    """Write a line of the list, shortened to fit."""
    font = ImageFont.load_default(_TEXT)
    shown = text
    while len(shown) > 1 and draw.textlength(shown, font) > _LIST - 2 * _MARGIN:
        shown = shown.removesuffix("...")[:-1] + "..."
    draw.text((_SIDE + _MARGIN, top), shown, colour, font)
