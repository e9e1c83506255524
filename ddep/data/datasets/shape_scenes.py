"""Draw the scenes of the generated data set: textured ground, and textured shapes on it.

A scene is two or three bands of stuff (sky, water, grass, stones) with irregular borders, and a few
turned discs, squares, triangles and stars on them, which occlude each other and cast shadows.
Things of all classes share the same colours and textures, and stuff is lit and tinted at random: no
class can be recognised by its colour alone.

Colours are float64 in [0, 1], RGB; a scene has S x S pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from ddep.data.datasets.panoptic import Category
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

CATEGORIES: list[Category] = [
    {"id": 1, "name": "disc", "isthing": 1, "color": [230, 60, 60]},
    {"id": 2, "name": "square", "isthing": 1, "color": [60, 120, 230]},
    {"id": 3, "name": "triangle", "isthing": 1, "color": [245, 190, 40]},
    {"id": 4, "name": "star", "isthing": 1, "color": [170, 70, 200]},
    {"id": 5, "name": "sky", "isthing": 0, "color": [135, 190, 235]},
    {"id": 6, "name": "water", "isthing": 0, "color": [30, 90, 140]},
    {"id": 7, "name": "grass", "isthing": 0, "color": [90, 160, 70]},
    {"id": 8, "name": "stones", "isthing": 0, "color": [130, 125, 120]},
]
MIN_SIZE = 32  # of scenes, pixels
# Things of which fewer pixels, or a smaller fraction, would be visible are not placed.
MIN_VISIBLE_AREA = 30
MIN_VISIBLE_PART = 0.35


@dataclass(frozen=True)
class Scene:
    """One drawn image and its labels.

    Attributes:
        image: (S, S, 3) uint8, RGB.
        panoptic: (S, S) int32, segment ids; every pixel has one.
        category_ids: category id of each segment id.
    """

    image: np.ndarray
    panoptic: np.ndarray
    category_ids: dict[int, int]


# Up to seven things, each of this radius as a fraction of the image's side.
_RADIUS = (0.08, 0.2)
# A single thing, the subject of its image, as in photographs that are collected by what they show.
_RADIUS_OF_SUBJECT = (0.12, 0.35)


def draw_scene(rng: np.random.Generator, side: int, *, subject: bool = False) -> Scene:
    """Draw one scene of ``side`` x ``side`` pixels.

    Args:
        rng: source of randomness.
        side: pixels.
        subject: show one thing, larger than usual, instead of several.
    """
    image, stuff = draw_stuff(rng, side)
    light = rng.uniform(0, 2 * np.pi)
    things = [_place_thing(rng, side, _RADIUS_OF_SUBJECT)] if subject else _place_things(rng, side)
    for thing in reversed(things):  # the first is in front
        cast_shadow(image, thing, draw_shadow_offset(rng, thing.radius), light)
        paint_thing(image, thing, draw_colour(rng, thing))
    image = light_scene(image, light, *draw_light(rng))
    blur = rng.uniform(0.3, 0.7)
    image = cv2.GaussianBlur(image, (0, 0), blur)

    panoptic = np.zeros((side, side), dtype=np.int32)
    category_ids: dict[int, int] = {}
    for kind in np.unique(stuff):
        category_ids[len(category_ids) + 1] = CATEGORIES[NUM_THINGS + kind]["id"]
        panoptic[stuff == kind] = len(category_ids)
    for thing in reversed(things):
        category_ids[len(category_ids) + 1] = CATEGORIES[thing.class_id]["id"]
        panoptic[thing.window][thing.distance < 0] = len(category_ids)
    return Scene(to_pixels(image), panoptic, category_ids)


def _place_things(rng: np.random.Generator, side: int) -> list[Thing]:
    """Place up to seven things, the front one first, each of them sufficiently visible."""
    covered = np.zeros((side, side), dtype=bool)
    things: list[Thing] = []
    for _ in range(int(rng.integers(2, 8))):
        thing = _place_thing(rng, side, _RADIUS)
        inside = thing.distance < 0
        hidden = covered[thing.window]  # a view
        visible = int((inside & ~hidden).sum())
        if visible >= max(MIN_VISIBLE_AREA, MIN_VISIBLE_PART * inside.sum()):
            hidden |= inside
            things.append(thing)
    return things


def _place_thing(rng: np.random.Generator, side: int, radii: tuple[float, float]) -> Thing:
    class_id = int(rng.integers(NUM_THINGS))
    radius = side * rng.uniform(*radii)
    centre = rng.uniform(0.05, 0.95, 2) * side
    return place_thing(class_id, radius, centre, rng.uniform(0, 2 * np.pi), side)


def draw_light(rng: np.random.Generator) -> tuple[float, float, np.ndarray]:
    """Draw how bright a scene is, how much brighter towards the light, and its tint (3,)."""
    return rng.uniform(0.8, 1.1), rng.uniform(0.1, 0.45), rng.uniform(0.88, 1.08, 3)


def light_scene(
    image: np.ndarray, light: float, brightness: float, gradient: float, tint: np.ndarray
) -> np.ndarray:
    """Light the scene (S, S, 3) from one side (radians; 0 is from below, pi/2 from the right)."""
    axis = np.linspace(-0.5, 0.5, len(image))
    slope = axis[:, None] * np.cos(light) + axis[None, :] * np.sin(light)
    return image * (brightness + gradient * slope)[..., None] * tint


def to_pixels(image: np.ndarray) -> np.ndarray:
    """Colours (S, S, 3) as uint8."""
    return np.round(np.clip(image, 0, 1) * 255).astype(np.uint8)
