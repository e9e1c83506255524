"""Objects that a model of images finds in neighbouring frames, linked by their overlap."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from detectron2.config import CfgNode
from detectron2.structures import Instances

from ddep.inference.image_tracks import link_images
from ddep.inference.prediction import Prediction
from tests.modeling.mask_former_config import mask_former_config

SIZE = (8, 32)
# (class, score, first column) of the squares of each frame.
Squares = list[tuple[int, float, int]]


class FakePredictor:
    """Predicts what a frame's sample says."""

    task = SimpleNamespace(num_classes=lambda cfg: 3)

    def __init__(self, kind: str, cfg: CfgNode) -> None:
        self.kind, self.cfg = kind, cfg

    def predict(self, samples: list[dict[str, Any]]) -> list[Prediction]:
        return [Prediction({}, self._outputs(s["squares"]), self.cfg, None, None) for s in samples]

    def _outputs(self, squares: Squares) -> dict[str, Any]:
        masks = torch.zeros(len(squares), *SIZE, dtype=torch.bool)
        for mask, (_, _, left) in zip(masks, squares, strict=True):
            mask[2:6, left : left + 6] = True
        if self.kind == "instances":
            found = Instances(SIZE)
            found.pred_masks = masks
            found.scores = torch.tensor([score for _, score, _ in squares])
            found.pred_classes = torch.tensor([k for k, _, _ in squares], dtype=torch.int64)
            return {"instances": found}
        ids = torch.full(SIZE, 9, dtype=torch.int32)
        segments: list[dict[str, Any]] = [{"id": 9, "isthing": False, "category_id": 2}]
        for number, (mask, (k, score, _)) in enumerate(zip(masks, squares, strict=True), 1):
            ids[mask] = number
            segments.append({"id": number, "isthing": True, "category_id": k, "score": score})
        return {"panoptic_seg": (ids, segments)}


def link(kind: str, video: list[Squares], **clip: Any) -> list[dict[int, tuple[int, int]]]:
    """The class and the first column of each track, for each frame."""
    cfg = mask_former_config({f"TEST.CLIP.{key}": value for key, value in clip.items()})
    found = list(link_images(FakePredictor(kind, cfg), [{"squares": s} for s in video]))
    assert [frame.frame for frame in found] == list(range(len(video)))
    frames = []
    for frame in found:
        assert frame.masks.dtype == torch.bool and frame.masks.shape[1:] == SIZE
        columns = frame.masks.any(1).long().argmax(1).tolist() if frame.track_ids else []
        labels = frame.class_probabilities.argmax(1).tolist() if frame.track_ids else []
        values = zip(labels, columns, strict=True)
        frames.append(dict(zip(frame.track_ids, values, strict=True)))
    return frames


@pytest.mark.parametrize("kind", ["panoptic", "instances"])
def test_neighbouring_masks_are_linked_whatever_their_order_and_scores(kind: str) -> None:
    video = [
        [(0, 0.9, 2), (1, 0.8, 20)],
        [(1, 0.9, 19), (0, 0.7, 3)],
        [(0, 0.6, 4)],
        [],
        [(0, 0.8, 5), (1, 0.7, 18), (1, 0.05, 26)],
    ]
    assert link(kind, video) == [
        {1: (0, 2), 2: (1, 20)},
        {1: (0, 3), 2: (1, 19)},
        {1: (0, 4)},
        {},
        {1: (0, 5), 2: (1, 18)},
    ]


def test_an_object_elsewhere_is_another_one_and_an_unsure_class_is_outvoted() -> None:
    """Even if the class is the same."""
    video = [[(0, 0.9, 2)], [(1, 0.5, 3)], [(1, 0.9, 24)]]
    assert link("instances", video) == [{1: (0, 2)}, {1: (0, 3)}, {2: (1, 24)}]


def test_what_scores_too_little_starts_no_track() -> None:
    video = [[(0, 0.4, 2)], [(0, 0.6, 3)], [(0, 0.2, 4)]]
    options = {"NEW_THRESHOLD": 0.5, "SCORE_THRESHOLD": 0.1}
    assert link("panoptic", video, **options) == [{}, {1: (0, 3)}, {1: (0, 4)}]
    assert link("panoptic", video, NEW_THRESHOLD=0.5, SCORE_THRESHOLD=0.3)[2] == {}
