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
from ddep.data.datasets.shape_stuff import draw_stuff, mix, noise

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
NUM_THINGS = 4
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
        _paint_thing(rng, image, thing, light)
    image = _light(rng, image, light)
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
    pixels = np.round(np.clip(image, 0, 1) * 255).astype(np.uint8)
    return Scene(pixels, panoptic, category_ids)


@dataclass(frozen=True)
class _Thing:
    """A placed shape, and the window of the scene that holds it and its shadow.

    Attributes:
        class_id: contiguous.
        radius: of its circumscribed circle, pixels.
        turn: radians.
        window: rows and columns of the scene, H x W pixels.
        y, x: (H, W), each pixel's coordinates in the shape's own turned frame, pixels.
        distance: (H, W), signed distance to its outline, pixels; negative inside.
    """

    class_id: int
    radius: float
    turn: float
    window: tuple[slice, slice]
    y: np.ndarray
    x: np.ndarray
    distance: np.ndarray


def outline_distance(class_id: int, y: np.ndarray, x: np.ndarray, radius: float) -> np.ndarray:
    """Signed distance to the outline of a shape at the origin, exact near the middle of edges."""
    if class_id == 0:
        return np.hypot(y, x) - radius
    if class_id == 1:
        return np.maximum(np.abs(y), np.abs(x)) - radius / np.sqrt(2)
    corners, inner = (3, 0.5 * radius) if class_id == 2 else (5, 0.42 * radius)
    # Fold the plane onto the wedge between a corner and the middle of the next notch (or side).
    wedge = np.pi / corners
    angle = np.abs(np.mod(np.arctan2(x, -y) + wedge, 2 * wedge) - wedge)
    along, across = np.hypot(y, x) * np.cos(angle), np.hypot(y, x) * np.sin(angle)
    notch = np.array([inner * np.cos(wedge), inner * np.sin(wedge)])
    edge = notch - np.array([radius, 0.0])
    normal = np.array([edge[1], -edge[0]]) / np.hypot(*edge)
    return (along - radius) * normal[0] + across * normal[1]


def _place_things(rng: np.random.Generator, side: int) -> list[_Thing]:
    """Place up to seven things, the front one first, each of them sufficiently visible."""
    covered = np.zeros((side, side), dtype=bool)
    things: list[_Thing] = []
    for _ in range(int(rng.integers(2, 8))):
        thing = _place_thing(rng, side, _RADIUS)
        inside = thing.distance < 0
        hidden = covered[thing.window]  # a view
        visible = int((inside & ~hidden).sum())
        if visible >= max(MIN_VISIBLE_AREA, MIN_VISIBLE_PART * inside.sum()):
            hidden |= inside
            things.append(thing)
    return things


def _place_thing(rng: np.random.Generator, side: int, radii: tuple[float, float]) -> _Thing:
    class_id = int(rng.integers(NUM_THINGS))
    radius = side * rng.uniform(*radii)
    centre = rng.uniform(0.05, 0.95, 2) * side
    turn = rng.uniform(0, 2 * np.pi)
    reach = 1.4 * radius + 2
    starts = np.maximum(0, np.floor(centre - reach)).astype(int)
    stops = np.minimum(side, np.ceil(centre + reach)).astype(int)
    window = (slice(starts[0], stops[0]), slice(starts[1], stops[1]))
    dy = np.arange(starts[0], stops[0])[:, None] + 0.5 - centre[0]
    dx = np.arange(starts[1], stops[1])[None, :] + 0.5 - centre[1]
    y, x = dy * np.cos(turn) - dx * np.sin(turn), dy * np.sin(turn) + dx * np.cos(turn)
    return _Thing(class_id, radius, turn, window, y, x, outline_distance(class_id, y, x, radius))


def _texture(rng: np.random.Generator, thing: _Thing) -> np.ndarray:
    """The weight of a thing's second colour at each pixel: (H, W), clipped to [0, 1] by `mix`."""
    shape = thing.y.shape
    period = max(4.0, thing.radius * rng.uniform(0.25, 0.7))
    contrast = period / 4
    stripes = np.sin(2 * np.pi * thing.y / period)
    checkers = stripes * np.sin(2 * np.pi * thing.x / period)
    kind = int(rng.integers(6))
    if kind == 0:  # plain, with a little noise
        return 0.25 + 0.25 * noise(rng, shape, shape[0] / 6, shape[1] / 6)
    if kind == 1:
        return 0.5 + contrast * stripes
    if kind == 2:
        return 0.5 + contrast * checkers
    if kind == 3:  # dots
        return contrast * (checkers - 0.35)
    if kind == 4:  # marble
        return 0.5 + 0.7 * np.sin(4 * stripes + 3 * noise(rng, shape, 4, 4))
    rings = np.hypot(thing.y, thing.x)
    return 0.5 + contrast * np.sin(2 * np.pi * rings / period)


def _paint_thing(rng: np.random.Generator, image: np.ndarray, thing: _Thing, light: float) -> None:
    """Paint a thing and its shadow onto ``image``, in place."""
    part = image[thing.window]  # a view
    offset = thing.radius * rng.uniform(0.08, 0.2)
    towards_light = thing.turn + light  # in the thing's own frame
    y = thing.y + offset * np.cos(towards_light)
    x = thing.x + offset * np.sin(towards_light)
    shadow = 0.5 - outline_distance(thing.class_id, y, x, thing.radius) / (0.25 * thing.radius)
    part *= 1 - 0.45 * np.clip(shadow, 0, 1)[..., None]

    first = rng.uniform(0.1, 0.95, 3)
    second = np.clip(first + rng.choice([-1, 1], 3) * rng.uniform(0.15, 0.55, 3), 0, 1)
    colour = mix(first, second, _texture(rng, thing))
    rim = np.clip(1 + thing.distance / (0.35 * thing.radius), 0, 1)
    colour *= (1 - 0.35 * rim**2)[..., None]
    part[:] = mix(part, colour, 0.5 - thing.distance)  # the outline is one pixel soft


def _light(rng: np.random.Generator, image: np.ndarray, light: float) -> np.ndarray:
    """Light the scene from one side (radians; 0 is from below, pi/2 from the right); tint it."""
    axis = np.linspace(-0.5, 0.5, len(image))
    slope = axis[:, None] * np.cos(light) + axis[None, :] * np.sin(light)
    brightness = rng.uniform(0.8, 1.1) + rng.uniform(0.1, 0.45) * slope
    tint = rng.uniform(0.88, 1.08, 3)
    return image * brightness[..., None] * tint
