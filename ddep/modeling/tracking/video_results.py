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
    frames: Iterable[FrameTracks], image_size: tuple[int, int], max_detections: int
) -> dict[str, Any]:
    """Gather the tracks of a video.

    Masks are encoded frame by frame. A track's score for a class is the mean probability of the
    class over the clips in which it was found; clips without it do not lower it.

    Args:
        frames: all frames of the video, in order.
        image_size: height and width of the masks.
        max_detections: how many pairs of a track and a class to take, best first.

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
    numbers = list(probabilities)
    scores, labels, chosen = [], [], []
    if numbers:
        all_scores = torch.stack(list(probabilities.values()))
        num_classes = all_scores.shape[1]
        best = all_scores.flatten().topk(min(max_detections, all_scores.numel()))
        scores = best.values.tolist()
        labels = (best.indices % num_classes).tolist()
        chosen = [numbers[row] for row in (best.indices // num_classes).tolist()]
    [empty] = encode_masks(torch.zeros(1, *image_size, dtype=torch.bool))
    return {
        "image_size": image_size,
        "pred_scores": scores,
        "pred_labels": labels,
        "pred_masks": [
            [masks[number].get(frame, empty) for frame in range(length)] for number in chosen
        ],
    }
