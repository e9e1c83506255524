"""What queries and pixels attend to, as heat maps and sampling points over the image."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

# In pixels: sides of a cell with a map and of the larger pictures, height of a line of text, its
# letters, margin.
_CELL, _LARGE, _LINE, _TEXT, _MARGIN = 190, 400, 20, 14, 10
_COLOUR_MAP = "turbo"
_RADIUS = 7  # of the dot with the largest weight
# Sampling points of the levels, coarse to fine, and the pixel that samples.
_LEVEL_COLOURS = ((255, 210, 60), (255, 90, 160), (70, 220, 255), (140, 255, 110))
_PIXEL = (255, 40, 40)


@dataclass(frozen=True)
class QueryRow:
    """What is drawn of a query.

    Attributes:
        title: its class and score.
        mask: (h, w) bool, over the image: its mask, or the inside of its box.
        maps: (h, w) float for each layer, not negative, over the padded image.
        allowed: (h, w) bool for each layer, where the query may attend.
    """

    title: str
    mask: np.ndarray
    maps: Sequence[np.ndarray]
    allowed: Sequence[np.ndarray]


@dataclass(frozen=True)
class SamplingPanel:
    """Where a pixel samples in a layer.

    Attributes:
        title: the layer.
        points: (M, L, P, 2) float, (x, y) as fractions of the padded image's width and height.
        weights: (M, L, P) float.
    """

    title: str
    points: np.ndarray
    weights: np.ndarray


def draw_attention(
    image: np.ndarray,
    overview: np.ndarray,
    covered: tuple[float, float],
    *,
    layers: Sequence[str] = (),
    queries: Sequence[QueryRow] = (),
    region: str = "mask",
    at: tuple[float, float] | None = None,
    levels: Sequence[str] = (),
    sampling: Sequence[SamplingPanel] = (),
    pixel_maps: Sequence[np.ndarray] = (),
) -> np.ndarray:
    """Draw the image with its results, heat maps for each query, and what a pixel looks at.

    Args:
        image: (H, W, 3) uint8, RGB.
        overview: the image with its results, of any size.
        covered: (y, x), the parts of the padded image's height and width that the image covers,
            from the upper left.
        layers: names of the decoder's layers, the columns.
        queries: the rows.
        region: what the queries' masks are called.
        at: (x, y) of the pixel, as fractions of the padded image's width and height.
        levels: names of the deformable encoder's levels.
        sampling: a panel for each of the deformable encoder's layers.
        pixel_maps: for each layer of another encoder, (h, w) float, what the pixel attends to.

    Returns:
        (H', W', 3) uint8, RGB.
    """
    parts = [_overview(overview, layers, queries, region)]
    if queries:
        parts += _query_rows(image, covered, layers, queries, region)
    if sampling:
        parts += _sampling_rows(image, covered, at, levels, sampling)
    if pixel_maps:
        parts += _pixel_rows(image, covered, at, pixel_maps)
    return np.asarray(_stack(parts))


def heat_map(
    image: np.ndarray, weights: np.ndarray, allowed: np.ndarray, covered: tuple[float, float]
) -> np.ndarray:
    """Lay weights over an image in grey; where attention is forbidden, only the pale image is left.

    Args:
        image: (H, W, 3) uint8, RGB.
        weights: (h, w) float, not negative; their largest hundredth gets the last colour.
        allowed: (h, w) bool, somewhere true.
        covered: see :func:`draw_attention`.

    Returns:
        (H, W, 3) uint8, RGB.
    """
    grey = image.mean(-1, keepdims=True)
    largest = max(float(np.quantile(weights[allowed], 0.99)), 1e-12)
    share = _over(image, weights, covered) / largest
    colours = 255 * matplotlib.colormaps[_COLOUR_MAP](share.clip(0, 1))[..., :3]
    mixed = 0.35 * grey + 0.65 * colours
    mixed = np.where(_over(image, allowed, covered)[..., None], mixed, _pale(grey))
    return mixed.round().astype(np.uint8)


def _pale(pixels: np.ndarray) -> np.ndarray:
    """Brighter pixels, which show as well in a dark image."""
    return 0.4 * pixels + 0.6 * 255


def _over(image: np.ndarray, cells: np.ndarray, covered: tuple[float, float]) -> np.ndarray:
    """The cell (h, w) over the padded image in which each pixel's centre lies: (H, W)."""
    rows, columns = (
        ((np.arange(pixels) + 0.5) / pixels * part * number).astype(int)
        for pixels, part, number in zip(image.shape[:2], covered, cells.shape, strict=True)
    )
    return cells[rows[:, None], columns]


def _overview(
    picture: np.ndarray, layers: Sequence[str], queries: Sequence[QueryRow], region: str
) -> Image.Image:
    shown = _fit(picture, _LARGE)
    if not layers:
        return shown
    if not queries:
        return _beside([shown, _text(["No query is kept: nothing was found."])])
    ramp = matplotlib.colormaps[_COLOUR_MAP](np.linspace(0, 1, 100))[None, :, :3]
    bar = Image.fromarray((255 * ramp).astype(np.uint8)).resize((100, 12))
    scale = _beside([_text(["no attention"]), bar, _text(["most in this map"])])
    explanation = [
        f"Each row below is a query. First its {region}; then what it attends to in",
        "every layer of the decoder, at that layer's scale: the mean over heads.",
    ]
    if not all(allowed.all() for query in queries for allowed in query.allowed):
        explanation.append("Pale: where its mask, as it was before that layer, forbids attention.")
    return _beside([shown, _below(_text(explanation), scale)])


def _query_rows(
    image: np.ndarray,
    covered: tuple[float, float],
    layers: Sequence[str],
    queries: Sequence[QueryRow],
    region: str,
) -> list[Image.Image]:
    small = np.asarray(_fit(image, _CELL))
    rows = [_beside([_text([name], small.shape[1]) for name in (region, *layers)])]
    for query in queries:
        inside = _over(small, query.mask, (1, 1))[..., None]
        cells = [np.where(inside, small, _pale(small.mean(-1, keepdims=True)).astype(np.uint8))]
        for weights, allowed in zip(query.maps, query.allowed, strict=True):
            cells.append(heat_map(small, weights, allowed, covered))
        maps = _beside([Image.fromarray(cell) for cell in cells])
        rows.append(_below(_text([query.title]), maps))
    return rows


def _sampling_rows(
    image: np.ndarray,
    covered: tuple[float, float],
    at: tuple[float, float],
    levels: Sequence[str],
    sampling: Sequence[SamplingPanel],
) -> list[Image.Image]:
    pale = _pale(np.asarray(_fit(image, _LARGE).convert("L")))
    grey = Image.fromarray(pale.astype(np.uint8)).convert("RGB")
    size = np.array([grey.width / covered[1], grey.height / covered[0]])  # of the padded image
    panels = []
    for panel in sampling:
        picture = grey.copy()
        draw = ImageDraw.Draw(picture)
        _draw_points(draw, panel.points * size, panel.weights)
        _draw_cross(draw, *(at * size).tolist())
        panels.append(_below(_text([panel.title]), picture))
    return [_legend(levels), *(_beside(panels[i : i + 3]) for i in range(0, len(panels), 3))]


def _pixel_rows(
    image: np.ndarray,
    covered: tuple[float, float],
    at: tuple[float, float],
    maps: Sequence[np.ndarray],
) -> list[Image.Image]:
    small = np.asarray(_fit(image, _LARGE))
    place = (at[0] / covered[1] * small.shape[1], at[1] / covered[0] * small.shape[0])
    panels = []
    for number, weights in enumerate(maps, start=1):
        allowed = np.ones_like(weights, dtype=bool)
        picture = Image.fromarray(heat_map(small, weights, allowed, covered))
        _draw_cross(ImageDraw.Draw(picture), *place)
        panels.append(_below(_text([f"encoder layer {number}"]), picture))
    lines = _text(
        [
            "What the pixel at the cross attends to in every layer of the encoder: the mean over",
            "heads. The colours are those of the maps of queries.",
        ]
    )
    return [lines, *(_beside(panels[i : i + 3]) for i in range(0, len(panels), 3))]


def _draw_points(draw: ImageDraw.ImageDraw, points: np.ndarray, weights: np.ndarray) -> None:
    """A dot for each point; its area is the weight, its colour the level."""
    largest = max(float(weights.max()), 1e-12)
    order = np.argsort(-weights, axis=None)  # small dots over large ones
    for head, level, point in zip(*np.unravel_index(order, weights.shape), strict=True):
        x, y = points[head, level, point].tolist()
        radius = _RADIUS * math.sqrt(weights[head, level, point] / largest)
        box = (x - radius, y - radius, x + radius, y + radius)
        draw.ellipse(box, _LEVEL_COLOURS[level % len(_LEVEL_COLOURS)], outline="black")


def _draw_cross(draw: ImageDraw.ImageDraw, x: float, y: float) -> None:
    for colour, width in (("white", 5), (_PIXEL, 3)):
        draw.line((x - 9, y, x + 9, y), colour, width)
        draw.line((x, y - 9, x, y + 9), colour, width)


def _legend(levels: Sequence[str]) -> Image.Image:
    lines = _text(
        [
            "Where the pixel at the cross samples in every layer of the deformable encoder, all",
            "heads together. A dot's area is its weight, its colour the level that is sampled:",
        ]
    )
    names = []
    for level, name in enumerate(levels):
        dot = Image.new("RGB", (16, _LINE), "white")
        colour = _LEVEL_COLOURS[level % len(_LEVEL_COLOURS)]
        ImageDraw.Draw(dot).ellipse((2, 4, 14, 16), colour, outline="black")
        names += [dot, _text([name])]
    return _below(lines, _beside(names))


def _text(lines: Sequence[str], width: int = 0) -> Image.Image:
    """Lines of text, of this width if that is more than they need."""
    font = ImageFont.load_default(_TEXT)
    width = max(width, *(math.ceil(font.getlength(line)) + 1 for line in lines))
    picture = Image.new("RGB", (width, _LINE * len(lines)), "white")
    draw = ImageDraw.Draw(picture)
    for number, line in enumerate(lines):
        draw.text((0, number * _LINE), line, "black", font)
    return picture


def _fit(picture: np.ndarray, side: int) -> Image.Image:
    """Enlarge or reduce to a square of this side; no side gets smaller than a pixel."""
    shown = Image.fromarray(picture)
    scale = side / max(shown.size)
    size = tuple(max(1, round(length * scale)) for length in shown.size)
    return shown.resize(size, Image.Resampling.BILINEAR)


def _beside(pictures: Sequence[Image.Image]) -> Image.Image:
    width = sum(picture.width + _MARGIN for picture in pictures) - _MARGIN
    row = Image.new("RGB", (width, max(picture.height for picture in pictures)), "white")
    left = 0
    for picture in pictures:
        row.paste(picture, (left, 0))
        left += picture.width + _MARGIN
    return row


def _below(*pictures: Image.Image) -> Image.Image:
    column = Image.new(
        "RGB", (max(p.width for p in pictures), sum(p.height for p in pictures)), "white"
    )
    top = 0
    for picture in pictures:
        column.paste(picture, (0, top))
        top += picture.height
    return column


def _stack(parts: Sequence[Image.Image]) -> Image.Image:
    """The parts below each other, with margins around all."""
    width = max(part.width for part in parts) + 2 * _MARGIN
    height = sum(part.height + _MARGIN for part in parts) + _MARGIN
    sheet = Image.new("RGB", (width, height), "white")
    top = _MARGIN
    for part in parts:
        sheet.paste(part, (_MARGIN, top))
        top += part.height + _MARGIN
    return sheet
