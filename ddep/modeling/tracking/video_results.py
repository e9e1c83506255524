"""Tracks as the results of a whole video, for evaluation."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from ddep.modeling.tracking.frame_tracks import FrameTracks
from ddep.modeling.video_postprocessing import encode_masks


def video_results(
    frames: Iterable[FrameTracks], image_size: tuple[int, int], max_detections: int | None = None
) -> dict[str, Any]:
    """Gather the tracks of a video.

    Masks are encoded frame by frame. A track's score for a class is the mean probability of the
    class over the clips in which it was found; clips without it do not lower it.

    Args:
        frames: all frames of the video, in order.
        image_size: height and width of the masks.
        max_detections: how many pairs of a track and a class to take, best first; None takes every
            track once, with its best class.

    Returns:
        What :func:`ddep.modeling.video_postprocessing.video_instance_inference` returns; where a
        track was not seen, its mask is empty.
    """
    masks: dict[int, dict[int, dict[str, Any]]] = defaultdict(dict)
    probabilities: dict[int, Tensor] = {}
    length = 0
    for frame in frames:
        length = frame.frame + 1
        for number, of_track, mask in zip(
            frame.track_ids, frame.class_probabilities, encode_masks(frame.masks), strict=True
        ):
            masks[number][frame.frame] = mask
            probabilities[number] = of_track
    pairs = [
        (score, label, number)
        for number, of_track in probabilities.items()
        for score, label in _classes(of_track, every_class=max_detections is not None)
    ]
    pairs = sorted(pairs, key=lambda pair: -pair[0])[:max_detections]
    [empty] = encode_masks(torch.zeros(1, *image_size, dtype=torch.bool))
    return {
        "image_size": image_size,
        "pred_scores": [score for score, _, _ in pairs],
        "pred_labels": [label for _, label, _ in pairs],
        "pred_masks": [
            [masks[number].get(frame, empty) for frame in range(length)] for _, _, number in pairs
        ],
    }


def _classes(probabilities: Tensor, *, every_class: bool) -> list[tuple[float, int]]:
    """Probability and number of the best class, or of every class, (K,)."""
    pairs = [(probability, number) for number, probability in enumerate(probabilities.tolist())]
    return pairs if every_class else [max(pairs)]
