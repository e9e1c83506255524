"""Draw the textured grounds of generated scenes, with the noise and blending for all textures.

Colours are float64 in [0, 1], RGB; a scene has S x S pixels.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np


def noise(
    rng: np.random.Generator, shape: tuple[int, int], cells_y: float, cells_x: float
) -> np.ndarray:
    """Smooth noise of ``shape`` (H, W) in about [-1, 1], with this many cells along each axis."""
    grid = rng.uniform(-1, 1, (max(2, round(cells_y)) + 1, max(2, round(cells_x)) + 1))
    return cv2.resize(grid, (shape[1], shape[0]), interpolation=cv2.INTER_CUBIC)


def mix(first: np.ndarray, second: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Blend two colours (3,) or images (S, S, 3) by a weight (S, S) in [0, 1] of the second."""
    weight = np.clip(weight, 0, 1)[..., None]
    return first * (1 - weight) + second * weight


def _colour(
    rng: np.random.Generator, base: tuple[float, float, float], spread: float
) -> np.ndarray:
    return np.clip(np.array(base) + rng.normal(0, spread, 3), 0, 1)


def _sky(rng: np.random.Generator, side: int) -> np.ndarray:
    zenith = _colour(rng, (0.35, 0.55, 0.85), 0.1)
    horizon = _colour(rng, (0.8, 0.75, 0.75), 0.12)
    height = np.linspace(0, 1.6, side)[:, None] * np.ones((1, side))
    clouds = noise(rng, (side, side), 6, 3) + 0.5 * noise(rng, (side, side), 14, 7)
    image = mix(zenith, horizon, height)
    return mix(image, np.array([0.95, 0.95, 0.97]), 1.1 * clouds - rng.uniform(0, 0.5))


def _water(rng: np.random.Generator, side: int) -> np.ndarray:
    deep = _colour(rng, (0.1, 0.3, 0.45), 0.09)
    bright = np.clip(deep + _colour(rng, (0.25, 0.3, 0.3), 0.05), 0, 1)
    rows = np.linspace(0, 1, side)[:, None]
    phase = rows * rng.uniform(70, 130) + 2.5 * noise(rng, (side, side), 8, 5)
    ripples = 0.5 + 0.5 * np.sin(phase) * (0.6 + 0.4 * noise(rng, (side, side), 10, 6))
    return mix(deep, bright, ripples**2)


def _grass(rng: np.random.Generator, side: int) -> np.ndarray:
    light = _colour(rng, (0.5, 0.65, 0.25), 0.09)
    dark = light * rng.uniform(0.35, 0.5)
    blades = 0.8 * noise(rng, (side, side), side / 8, side / 2) + 0.4 * noise(
        rng, (side, side), 6, 6
    )
    return mix(light, dark, 0.45 + 0.6 * blades)


def _stones(rng: np.random.Generator, side: int) -> np.ndarray:
    cells = int(rng.integers(6, 10))
    corners = np.mgrid[0:cells, 0:cells].reshape(2, -1).T
    centres = (corners + rng.uniform(0.1, 0.9, (cells**2, 2))) / cells
    # The two nearest centres of each pixel, at half resolution: seams are where both are as near.
    half = side // 2
    axis = (np.arange(half) + 0.5) / half
    dy, dx = axis[:, None, None] - centres[:, 0], axis[None, :, None] - centres[:, 1]
    squared = dy**2 + dx**2
    nearest = squared.argmin(axis=-1)
    two = np.sqrt(np.partition(squared, 1, axis=-1)[..., :2])
    seam = cv2.resize(two[..., 1] - two[..., 0], (side, side), interpolation=cv2.INTER_LINEAR)
    tones = _colour(rng, (0.55, 0.52, 0.5), 0.08) * rng.uniform(0.6, 1.25, (cells**2, 1))
    image = cv2.resize(tones[nearest], (side, side), interpolation=cv2.INTER_LINEAR)
    image = image * (1 + 0.12 * noise(rng, (side, side), side / 4, side / 4))[..., None]
    return mix(image * 0.35, image, seam * cells * 3)


# In the order of the data set's categories.
STUFF: list[Callable[[np.random.Generator, int], np.ndarray]] = [_sky, _water, _grass, _stones]


def draw_stuff(rng: np.random.Generator, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw bands of stuff from top to bottom; if there is sky, it is on top.

    Returns:
        image (S, S, 3); each pixel's kind of stuff, (S, S), an index into STUFF.
    """
    number = int(rng.integers(2, 4))
    grounds = rng.permutation(np.arange(1, len(STUFF)))[:number].tolist()
    if rng.random() < 0.75:
        grounds[0] = 0
    edges = np.linspace(0, 1, number + 1)[1:-1] + rng.uniform(-0.12, 0.12, number - 1)
    rows = np.linspace(0, 1, side)[:, None]
    columns = np.linspace(-0.5, 0.5, side)[None, :]
    image = STUFF[grounds[0]](rng, side)
    stuff = np.full((side, side), grounds[0])
    for kind, edge in zip(grounds[1:], edges, strict=True):
        border = (
            edge
            + rng.uniform(-0.25, 0.25) * columns
            + 0.07 * noise(rng, (side, side), 2, 4)
            + rng.uniform(0.005, 0.03) * noise(rng, (side, side), 12, 16)
        )
        below = rows > border
        image = np.where(below[..., None], STUFF[kind](rng, side), image)
        stuff[below] = kind
    return image, stuff
