"""The same object through a video: a model's tracks, frame by frame."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from detectron2.data import Metadata

from ddep.data.image_in_memory import ImageInMemory
from ddep.drawing.classes import class_name
from ddep.drawing.segments import SCORE_THRESHOLD
from ddep.drawing.tracks import draw_tracks
from ddep.errors import UserError
from ddep.inference.image_tracks import link_images
from ddep.modeling.postprocessing import masks_to_boxes
from ddep.modeling.tracking import FrameTracks

if TYPE_CHECKING:
    from ddep.inference.predictor import Predictor


class TrackedFrame:
    """One frame of a video, and the N objects that a model sees in it.

    Attributes:
        number: of the frame, from 0.
        image: (H, W, 3) uint8, RGB.
        track_ids: N numbers, the same for an object in all frames, from 1.
        masks: (N, H, W) bool.
        class_probabilities: (N, K) float32, of the tracks, as far as they are known by now.
    """

    def __init__(self, image: np.ndarray, found: FrameTracks, metadata: Metadata) -> None:
        """
        Args:
            image: the frame.
            found: its tracks.
            metadata: names of the classes.
        """
        self.number = found.frame
        self.image = image
        self.track_ids = found.track_ids
        self.masks = found.masks.numpy()
        self.class_probabilities = found.class_probabilities.numpy()
        self._metadata = metadata

    @property
    def labels(self) -> list[int]:
        """The most probable class of each object, from 0."""
        return self.class_probabilities.argmax(1).tolist() if self.track_ids else []

    @property
    def scores(self) -> list[float]:
        """The probability of this class."""
        return self.class_probabilities.max(1).tolist() if self.track_ids else []

    @cached_property
    def boxes(self) -> np.ndarray:
        """(N, 4) float32, around the masks: left, top, right, bottom in pixels."""
        return masks_to_boxes(torch.from_numpy(self.masks)).numpy()

    def draw(self) -> np.ndarray:
        """Draw the objects over the frame, each in the colour of its track; those that score above
        0.5. (height, width, 3) uint8, RGB; small frames are enlarged."""
        names = self._metadata.get("thing_classes", ())
        shown = [row for row, score in enumerate(self.scores) if score > SCORE_THRESHOLD]
        numbers = [self.track_ids[row] for row in shown]
        return draw_tracks(
            self.image,
            self.masks[shown],
            numbers,
            [
                f"{class_name(names, self.labels[row])} {number}"
                for row, number in zip(shown, numbers, strict=True)
            ],
            self._metadata,
        )


def track_frames(predictor: Predictor, frames: Iterable[np.ndarray]) -> Iterator[TrackedFrame]:
    """See :meth:`ddep.inference.Predictor.track`."""
    source = _Source(predictor, frames)
    samples = iter(source)
    first = next(samples, None)
    if first is not None:
        samples = chain([first], samples)
        if predictor.takes_videos:
            size = source.waiting[0].shape[:2]
            found = predictor.model.track((sample["image"] for sample in samples), size)
        else:
            found = link_images(predictor, samples)
        for of_frame in found:
            yield TrackedFrame(source.waiting.popleft(), of_frame, predictor.metadata)
    if source.error is not None:
        raise source.error


class _Source:
    """The model's inputs of frames, one after the other, until a frame cannot be read.

    Attributes:
        waiting: the frames whose tracks are not known yet.
        error: what ended the video early; None if it has not.
    """

    def __init__(self, predictor: Predictor, frames: Iterable[np.ndarray]) -> None:
        self.waiting: deque[np.ndarray] = deque()
        self.error: UserError | None = None
        self._predictor = predictor
        self._frames = frames

    def __iter__(self) -> Iterator[dict[str, Any]]:
        size = None
        try:
            for number, frame in enumerate(self._frames):
                size = size or frame.shape
                if frame.shape != size:
                    raise UserError(
                        f"frame {number + 1} is {frame.shape[1]}x{frame.shape[0]}, but those "
                        f"before it are {size[1]}x{size[0]}; a video has frames of one size"
                    )
                sample = self._sample(frame)
                self.waiting.append(frame)
                yield sample
        except UserError as error:
            self.error = error

    def _sample(self, frame: np.ndarray) -> dict[str, Any]:
        if not self._predictor.takes_videos:
            return self._predictor.inputs(frame)
        name = ImageInMemory(frame)
        video = {
            "file_name": name,
            "file_names": [name],
            "height": frame.shape[0],
            "width": frame.shape[1],
            "length": 1,
            "video_id": 0,
        }
        sample = self._predictor.map_record(video, 0)
        return {**sample, "image": sample["image"][0]}
