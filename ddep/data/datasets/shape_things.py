"""Draw the things of generated scenes: turned shapes with textures and shadows.

Colours are float64 in [0, 1], RGB; a scene has S x S pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ddep.data.datasets.shape_stuff import mix, noise

# Disc, square, triangle, star.
NUM_THINGS = 4


@dataclass(frozen=True)
class Thing:
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


def place_thing(class_id: int, radius: float, centre: np.ndarray, turn: float, side: int) -> Thing:
    """Place a shape in a scene of ``side`` x ``side`` pixels.

    Args:
        class_id: contiguous.
        radius: pixels.
        centre: (2,), y and x in pixels. Outside of the scene, the shape's window may be empty.
        turn: radians.
        side: pixels.
    """
    reach = 1.4 * radius + 2
    starts = np.clip(np.floor(centre - reach), 0, side).astype(int)
    stops = np.clip(np.ceil(centre + reach), 0, side).astype(int)
    window = (slice(starts[0], stops[0]), slice(starts[1], stops[1]))
    dy = np.arange(starts[0], stops[0])[:, None] + 0.5 - centre[0]
    dx = np.arange(starts[1], stops[1])[None, :] + 0.5 - centre[1]
    y, x = dy * np.cos(turn) - dx * np.sin(turn), dy * np.sin(turn) + dx * np.cos(turn)
    return Thing(class_id, radius, turn, window, y, x, outline_distance(class_id, y, x, radius))


def draw_shadow_offset(rng: np.random.Generator, radius: float) -> float:
    """Draw how far the shadow of a shape lies from it, pixels."""
    return radius * rng.uniform(0.08, 0.2)


def cast_shadow(image: np.ndarray, thing: Thing, offset: float, light: float) -> None:
    """Darken ``image`` (S, S, 3) by the shadow of a thing, in place.

    Args:
        image: the scene.
        thing: what casts the shadow.
        offset: of the shadow, pixels.
        light: direction that the light comes from; radians, 0 is from below.
    """
    towards_light = thing.turn + light  # in the thing's own frame
    y = thing.y + offset * np.cos(towards_light)
    x = thing.x + offset * np.sin(towards_light)
    shadow = 0.5 - outline_distance(thing.class_id, y, x, thing.radius) / (0.25 * thing.radius)
    image[thing.window] *= 1 - 0.45 * np.clip(shadow, 0, 1)[..., None]


def draw_colour(rng: np.random.Generator, thing: Thing) -> np.ndarray:
    """Draw a thing's surface: (H, W, 3), the colours of the pixels of its window."""
    first = rng.uniform(0.1, 0.95, 3)
    second = np.clip(first + rng.choice([-1, 1], 3) * rng.uniform(0.15, 0.55, 3), 0, 1)
    colour = mix(first, second, _texture(rng, thing))
    rim = np.clip(1 + thing.distance / (0.35 * thing.radius), 0, 1)
    colour *= (1 - 0.35 * rim**2)[..., None]
    return colour


def paint_thing(image: np.ndarray, thing: Thing, colour: np.ndarray) -> None:
    """Paint a thing with the colours of its window, (H, W, 3), onto ``image``, in place."""
    part = image[thing.window]  # a view
    part[:] = mix(part, colour, 0.5 - thing.distance)  # the outline is one pixel soft


def _texture(rng: np.random.Generator, thing: Thing) -> np.ndarray:
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
