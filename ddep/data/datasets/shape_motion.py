"""How the things of generated videos move: straight or in curves, turning; they bounce off walls.

The walls are the frame's border, or lie so far outside that a thing leaves before it comes back.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

# Per frame: as a fraction of the frame's side, and in radians.
_SPEED = (0.03, 0.07)
_SPIN = (-0.2, 0.2)
# Of a curve to both sides of the straight line, as a fraction of the side; its period in frames.
_AMPLITUDE = (0.05, 0.15)
_PERIOD = (8, 20)
_CURVED = 0.5


class Passage(NamedTuple):
    """Where a thing passes: at this frame (which may lie between two) it is at this point.

    Attributes:
        frame: counted from 0.
        point: (2,), y and x in pixels.
        direction: in which it passes; radians, 0 is down, pi/2 is to the right.
    """

    frame: float
    point: np.ndarray
    direction: float


def draw_passage(rng: np.random.Generator, side: int, frames: int, margin: float) -> Passage:
    """Draw a passage.

    Args:
        rng: source of randomness.
        side: of the frames, pixels.
        frames: of the video.
        margin: it is at least this far from the border, and from the first and the last frame; as a
            fraction of the side and of the video.
    """
    return Passage(
        frame=rng.uniform(margin, 1 - margin) * (frames - 1),
        point=rng.uniform(margin, 1 - margin, 2) * side,
        direction=rng.uniform(0, 2 * np.pi),
    )


def crossing(rng: np.random.Generator, passage: Passage, radius: float) -> Passage:
    """Draw the passage of a second thing that meets the first there, from another direction.

    Args:
        rng: source of randomness.
        passage: of the first.
        radius: of both, pixels; they come as near to each other as a part of it.
    """
    return Passage(
        frame=passage.frame,
        point=passage.point + rng.uniform(-0.4, 0.4, 2) * radius,
        direction=passage.direction + np.pi + rng.uniform(-2, 2),
    )


def draw_path(
    rng: np.random.Generator,
    passage: Passage,
    radius: float,
    side: int,
    frames: int,
    *,
    leaves: bool,
) -> np.ndarray:
    """Draw a path.

    Args:
        rng: source of randomness.
        passage: through which the path leads, unless it is beyond a wall.
        radius: of the thing that moves, pixels.
        side: of the frames, pixels.
        frames: T.
        leaves: whether the walls are outside of the frame.

    Returns:
        (T, 2), y and x of the thing's centre in each frame, pixels.
    """
    time = np.arange(frames) - passage.frame
    along = np.array([np.cos(passage.direction), np.sin(passage.direction)])
    path = passage.point + (side * rng.uniform(*_SPEED) * time)[:, None] * along
    if rng.random() < _CURVED:
        across = along[::-1] * (1, -1)
        swing = np.sin(2 * np.pi * time / rng.uniform(*_PERIOD))
        path += (side * rng.uniform(*_AMPLITUDE) * swing)[:, None] * across
    wall = -1.6 * radius if leaves else 0.8 * radius
    return reflect(path, wall, side - wall)


def draw_turns(rng: np.random.Generator, frames: int) -> np.ndarray:
    """Draw how a thing is turned in each frame: (T,), radians."""
    return rng.uniform(0, 2 * np.pi) + rng.uniform(*_SPIN) * np.arange(frames)


def reflect(positions: np.ndarray, low: float, high: float) -> np.ndarray:
    """Fold coordinates into [low, high], as a mirror at each end does."""
    size = high - low
    return low + size - np.abs(np.mod(positions - low, 2 * size) - size)
