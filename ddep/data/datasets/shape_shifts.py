"""Other looks of generated scenes: the same shapes and classes, as another domain shows them.

A shift changes a finished image and none of its labels. No class keeps a colour of its own, as in
the scenes themselves: models that have learned from the target's labels still have to tell shapes
and textures apart.

Colours are float64 in [0, 1], RGB; a scene has S x S pixels.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from ddep.data.datasets.shape_stuff import mix, noise

_LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601


def _night(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Moonlight, lamps with a warm light, glow, and the noise of a sensor."""
    side = len(image)
    axis = np.linspace(0, 1, side)
    light = rng.uniform(0.45, 0.65) * np.array([0.72, 0.82, 1.1]) * np.ones((side, side, 1))
    for _ in range(int(rng.integers(1, 4))):
        y, x, reach = *rng.uniform(0, 1, 2), rng.uniform(0.1, 0.25)
        squared = (axis[:, None] - y) ** 2 + (axis[None, :] - x) ** 2
        colour = rng.uniform(0.2, 0.5) * np.array([1.0, 0.75, 0.4])
        light += np.exp(-squared / (2 * reach**2))[..., None] * colour
    dark = _saturate(image, 0.5) * light
    glow = cv2.GaussianBlur(np.maximum(dark - 0.4, 0), (0, 0), side / 20)
    return dark + glow + rng.normal(0, rng.uniform(0.01, 0.025), image.shape)


def _fog(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """A pale veil that drifts, and is denser towards the top, where scenes are farther away."""
    side = len(image)
    depth = np.linspace(1, 0.45, side)[:, None] * (1 + 0.35 * noise(rng, (side, side), 3, 3))
    veil = 1 - np.exp(-rng.uniform(0.5, 1.0) * depth)
    colour = rng.uniform(0.7, 0.8) + rng.uniform(-0.03, 0.05, 3)
    soft = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.6, 1.0))
    return mix(soft, colour, veil)


def _paint(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Flat, saturated colours of another palette, smeared along the strokes of a brush."""
    side = len(image)
    direction = np.pi * noise(rng, (side, side), 4, 4)
    length = rng.uniform(1.5, 3.0) * side / 128  # half a stroke's, pixels
    y, x = np.mgrid[:side, :side]
    smeared = np.mean(
        [
            cv2.remap(
                image,
                (x + step * np.cos(direction)).astype(np.float32),
                (y + step * np.sin(direction)).astype(np.float32),
                cv2.INTER_LINEAR,
                borderMode=cv2.BORDER_REFLECT,
            )
            for step in np.linspace(-length, length, 5)
        ],
        axis=0,
    )
    flat = cv2.pyrMeanShiftFiltering(np.round(smeared * 255).astype(np.uint8), 3, 16)
    hsv = cv2.cvtColor(flat.astype(np.float32) / 255, cv2.COLOR_RGB2HSV)  # hue in degrees
    hsv[..., 0] = (hsv[..., 0] + rng.uniform(-90, 90)) % 360
    colours = _saturate(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB).astype(np.float64), 1.7)
    canvas = 1 + 0.03 * rng.normal(0, 1, (side, side, 1))
    return np.clip(0.05 + 0.95 * colours, 0, 1) * canvas


def _saturate(image: np.ndarray, factor: float) -> np.ndarray:
    """Multiply the distance of colours from their grey; 0 is grey, 1 changes nothing."""
    grey = (image @ _LUMA)[..., None]
    return grey + factor * (image - grey)


# By the name that configs and commands call it.
SHIFTS: dict[str, Callable[[np.random.Generator, np.ndarray], np.ndarray]] = {
    "night": _night,
    "fog": _fog,
    "paint": _paint,
}


def shift_image(rng: np.random.Generator, image: np.ndarray, shift: str) -> np.ndarray:
    """Show a scene in another look.

    Args:
        rng: source of randomness.
        image: (S, S, 3) uint8, RGB.
        shift: a name in SHIFTS.

    Returns:
        (S, S, 3) uint8, RGB; ``image`` stays as it is.
    """
    shifted = SHIFTS[shift](rng, image / 255)
    return np.round(np.clip(shifted, 0, 1) * 255).astype(np.uint8)
