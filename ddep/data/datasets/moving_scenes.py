"""Draw the videos of the generated data set: the things of a scene move over still ground.

In each video, things of one class that look alike cross: only their motion tells them apart.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from ddep.data.datasets.shape_motion import crossing, draw_passage, draw_path, draw_turns
from ddep.data.datasets.shape_scenes import draw_light, light_scene, to_pixels
from ddep.data.datasets.shape_stuff import draw_stuff
from ddep.data.datasets.shape_things import (
    NUM_THINGS,
    Thing,
    cast_shadow,
    draw_colour,
    draw_shadow_offset,
    paint_thing,
    place_thing,
)

# A thing of which fewer pixels are visible counts as hidden.
MIN_VISIBLE_AREA = 10
_RADIUS = (0.09, 0.16)  # as a fraction of the frame's side
_TINT = (0.95, 1.05)  # of each of the things that look alike


@dataclass(frozen=True)
class Clip:
    """One drawn video and its labels.

    Attributes:
        images: (T, S, S, 3) uint8, RGB.
        tracks: (T, S, S) uint8, the number of the thing that each pixel shows, 0 for the ground.
        class_ids: contiguous, of each thing that is ever visible, by its number.
    """

    images: np.ndarray
    tracks: np.ndarray
    class_ids: dict[int, int]


@dataclass(frozen=True)
class _Look:
    """What a thing looks like in every frame.

    Attributes:
        class_id: contiguous.
        radius: pixels.
        shadow_offset: pixels.
        surface: (P, P, 3) float32, its colours in its own frame, where its centre is the middle.
    """

    class_id: int
    radius: float
    shadow_offset: float
    surface: np.ndarray


@dataclass(frozen=True)
class _Mover:
    """A thing that moves.

    Attributes:
        look: of the thing.
        tint: (3,), factor of its colours.
        centres: (T, 2), y and x, pixels.
        turns: (T,), radians.
    """

    look: _Look
    tint: np.ndarray
    centres: np.ndarray
    turns: np.ndarray


def draw_clip(rng: np.random.Generator, side: int, frames: int) -> Clip:
    """Draw a video of ``frames`` frames of ``side`` x ``side`` pixels."""
    ground, _ = draw_stuff(rng, side)
    direction = rng.uniform(0, 2 * np.pi)
    light = draw_light(rng)
    blur = rng.uniform(0.3, 0.7)
    movers = _draw_movers(rng, side, frames)
    images = np.empty((frames, side, side, 3), dtype=np.uint8)
    tracks = np.zeros((frames, side, side), dtype=np.uint8)
    for frame in range(frames):
        image = ground.copy()
        for number, mover in enumerate(movers, start=1):  # the last is in front
            look = mover.look
            thing = place_thing(
                look.class_id, look.radius, mover.centres[frame], mover.turns[frame], side
            )
            if thing.distance.size:
                cast_shadow(image, thing, look.shadow_offset, direction)
                paint_thing(image, thing, _surface_at(thing, look) * mover.tint)
                tracks[frame][thing.window][thing.distance < 0] = number
        image = light_scene(image, direction, *light)
        images[frame] = to_pixels(cv2.GaussianBlur(image, (0, 0), blur))
        areas = np.bincount(tracks[frame].ravel(), minlength=len(movers) + 1)
        tracks[frame][areas[tracks[frame]] < MIN_VISIBLE_AREA] = 0
    return Clip(
        images,
        tracks,
        {
            number: mover.look.class_id
            for number, mover in enumerate(movers, start=1)
            if (tracks == number).any()
        },
    )


def _draw_movers(rng: np.random.Generator, side: int, frames: int) -> list[_Mover]:
    """Draw one or two pairs that look alike and cross, and one or two other things."""
    movers: list[_Mover] = []
    for is_pair in [True] * int(rng.integers(1, 3)) + [False] * int(rng.integers(1, 3)):
        look = _draw_look(rng, side)
        turns = draw_turns(rng, frames)
        passages = [draw_passage(rng, side, frames, margin=0.3 if is_pair else 0.05)]
        if is_pair:
            passages.append(crossing(rng, passages[0], look.radius))
        for passage in passages:
            leaves = rng.random() < (0.5 if is_pair else 0.8)
            centres = draw_path(rng, passage, look.radius, side, frames, leaves=leaves)
            movers.append(_Mover(look, rng.uniform(*_TINT, 3), centres, turns))
    return [movers[i] for i in rng.permutation(len(movers))]


def _draw_look(rng: np.random.Generator, side: int) -> _Look:
    class_id = int(rng.integers(NUM_THINGS))
    radius = side * rng.uniform(*_RADIUS)
    shadow_offset = draw_shadow_offset(rng, radius)
    middle = np.ceil(1.4 * radius) + 2
    thing = place_thing(class_id, radius, np.full(2, middle), 0.0, 2 * int(middle))
    return _Look(class_id, radius, shadow_offset, draw_colour(rng, thing).astype(np.float32))


def _surface_at(thing: Thing, look: _Look) -> np.ndarray:
    """The colours (H, W, 3) of a look at the pixels of a placed thing's window."""
    middle = len(look.surface) / 2 - 0.5  # OpenCV's pixel 0 has its centre at 0
    return cv2.remap(
        look.surface,
        (thing.x + middle).astype(np.float32),
        (thing.y + middle).astype(np.float32),
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )
