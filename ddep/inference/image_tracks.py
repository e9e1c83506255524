"""Tracks of a model of images: the objects of neighbouring frames are linked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import torch

from ddep.errors import UserError
from ddep.inference.prediction import Prediction
from ddep.modeling.tracking import ClipInstances, ClipTracker, FrameTracks

if TYPE_CHECKING:
    from ddep.inference.predictor import Predictor

# Results that are objects with masks.
OBJECTS = ("panoptic_seg", "segm")


def check_has_objects(predictor: Predictor) -> None:
    """Raise :class:`UserError` unless the model predicts objects that can be followed."""
    task, cfg = predictor.task, predictor.cfg
    if set(OBJECTS) & task.measured(cfg).keys():
        return
    switches = [key for name, key in task.measurable(cfg).items() if name in OBJECTS]
    hint = f"; set {' or '.join(switches)} True" if switches else ""
    raise UserError(
        f"MODEL.META_ARCHITECTURE {cfg.MODEL.META_ARCHITECTURE} of this config predicts no objects "
        f"with masks, whose tracks could be followed{hint}"
    )


def link_images(predictor: Predictor, samples: Iterable[dict[str, Any]]) -> Iterator[FrameTracks]:
    """Follow objects, panoptic things or else instances, from frame to frame.

    Each frame is a clip of its own for a :class:`ddep.modeling.tracking.ClipLinker` with the values
    of TEST.CLIP. Objects have no embeddings; their scores by class stand for them. As these do not
    tell two objects of a class apart, tracks are only found again where they were last seen.

    Args:
        predictor: of a model of images.
        samples: its inputs, for each frame.

    Yields:
        The tracks of each frame, in order, when the next one is done.
    """
    tracker = ClipTracker.from_config(predictor.cfg)
    linker = tracker.new_linker(refind_threshold=2.0)
    num_classes = predictor.task.num_classes(predictor.cfg)
    for frame, sample in enumerate(samples):
        [prediction] = predictor.predict([sample])
        objects = _objects(prediction, num_classes)
        scores, order = objects.scores.sort(descending=True, stable=True)
        order = order[scores >= tracker.score_threshold][: tracker.max_instances]
        yield from linker.add(ClipInstances(*(values[order] for values in objects)), frame)
    yield from linker.finish()


def _objects(prediction: Prediction, num_classes: int) -> ClipInstances:
    """All objects of one frame, with masks at its own size that are not empty."""
    if prediction.panoptic is not None:
        ids, segments = prediction.panoptic
        things = [segment for segment in segments if segment["isthing"]]
        numbers = torch.tensor([segment["id"] for segment in things], dtype=torch.int32)
        masks = torch.from_numpy(ids)[None] == numbers[:, None, None]
        scores = torch.tensor([segment["score"] for segment in things])
        classes = torch.tensor([segment["category_id"] for segment in things], dtype=torch.int64)
    else:
        found = prediction.instances
        masks, scores, classes = found.pred_masks, found.scores, found.pred_classes
    seen = masks.flatten(1).any(1)
    by_class = torch.zeros(len(masks), num_classes)
    by_class[torch.arange(len(masks)), classes] = scores.float()
    return ClipInstances(by_class[seen], masks[seen, None], by_class[seen])
