"""The legend: the classes of a view, with the share of the image that they have."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from ddep.web.segments import NOTHING, Colour, Segments


@dataclass(frozen=True)
class LegendEntry:
    """A class in the legend.

    Attributes:
        name: of the class.
        colour: RGB.
        text: what the legend says.
    """

    name: str
    colour: Colour
    text: str


def legend_of(segments: Segments, min_score: float = 0.0) -> list[LegendEntry]:
    """The classes of segments that score enough, those with the most pixels first.

    Args:
        segments: of an image.
        min_score: as for :meth:`Segments.seen`.
    """
    seen = segments.seen(min_score=min_score)
    pixels = np.bincount(seen[seen != NOTHING], minlength=len(segments.found))
    areas: dict[str, int] = {}
    counts: dict[str, int] = {}
    colours: dict[str, Colour] = {}
    for segment, area in zip(segments.found, pixels.tolist(), strict=True):
        if segment.score is not None and segment.score < min_score:
            continue
        areas[segment.name] = areas.get(segment.name, 0) + area
        counts[segment.name] = counts.get(segment.name, 0) + 1
        colours[segment.name] = segment.colour
    return [
        LegendEntry(name, colours[name], _text(name, counts[name], areas[name] / seen.size))
        for name in sorted(areas, key=lambda name: -areas[name])
    ]


def style_of(entries: Collection[LegendEntry], element: str) -> str:
    """HTML that colours the boxes of a check-box group: a style element.

    Args:
        entries: in the order of the boxes.
        element: id of the group.
    """
    rules = [
        f"#{element} label:nth-of-type({number}) span::before {{ background: rgb{entry.colour}; }}"
        for number, entry in enumerate(entries, start=1)
    ]
    return f"<style>{' '.join(rules)}</style>"


def _text(name: str, count: int, share: float) -> str:
    percent = f"{100 * share:.0f} %" if share >= 0.005 else "< 1 %"
    return f"{name} × {count}, {percent}" if count > 1 else f"{name}, {percent}"
