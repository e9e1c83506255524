"""Tracks as text, in the formats that the servers of MOTChallenge take: a file for each video."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ddep.evaluation.tracking_frames import Shapes


def mots_text(shapes: Shapes, categories: Sequence[int]) -> str:
    """A line for each mask: frame (from 1), track (from 1), category, height, width, run lengths.

    Args:
        shapes: run lengths by track, for each frame.
        categories: of the tracks, in the data set's ids.
    """
    lines = []
    for frame, masks in enumerate(shapes, 1):
        for track, mask in sorted(masks.items()):
            lines.append(_mots_line(frame, track + 1, categories[track], mask))
    return "".join(lines)


def _mots_line(frame: int, track: int, category: int, mask: Mapping[str, Any]) -> str:
    counts = mask["counts"]
    text = counts if isinstance(counts, str) else counts.decode()
    height, width = mask["size"]
    return f"{frame} {track} {category} {height} {width} {text}\n"


def mot_text(shapes: Shapes, scores: Sequence[float]) -> str:
    """A line for each box: frame, track, left, top (all from 1), width, height, score, -1, -1, -1.

    Args:
        shapes: boxes by track, for each frame: left and top from 0, width and height in pixels.
        scores: of the tracks.
    """
    lines = []
    for frame, boxes in enumerate(shapes, 1):
        for track, (left, top, width, height) in sorted(boxes.items()):
            box = f"{left + 1:.2f},{top + 1:.2f},{width:.2f},{height:.2f}"
            lines.append(f"{frame},{track + 1},{box},{scores[track]:.4f},-1,-1,-1\n")
    return "".join(lines)
