"""A trained model, from images to predictions."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import Metadata
from detectron2.modeling import build_model
from PIL import Image
from torch import nn

from ddep.data.datasets.custom import register_custom_sets
from ddep.data.image_in_memory import ImageInMemory
from ddep.data.mappers import build_mapper
from ddep.device import adapt_to_device
from ddep.errors import UserError
from ddep.inference.image_tracks import check_has_objects
from ddep.inference.inference_model import inference_model
from ddep.inference.load_model import load_weights, read_model_config
from ddep.inference.prediction import Prediction
from ddep.inference.tracking import TrackedFrame, track_frames
from ddep.tasks import Task, task_of

logger = logging.getLogger(__name__)

ImageLike = str | Path | Image.Image | np.ndarray | torch.Tensor


class Predictor:
    """A trained model in evaluation mode, with the mapper that evaluation uses.

    ::

        predictor = Predictor("output/run")
        prediction = predictor("image.jpg")
        prediction.save("picture.png")

    Attributes:
        cfg: its config.
        model: the network, without test-time augmentation.
        task: what kind of model it is.
        metadata: names and colours of its classes; None for a model without classes.
    """

    cfg: CfgNode
    model: nn.Module
    task: Task
    metadata: Metadata | None

    def __init__(
        self,
        model: str | Path | CfgNode,
        weights: str | Path | None = None,
        *,
        overrides: Sequence[str] = (),
        device: str | None = None,
    ) -> None:
        """
        Args:
            model: the folder of a run (its config and last checkpoint), a YAML config, or a config.
            weights: a checkpoint; None is the run's last one, or MODEL.WEIGHTS of a config.
            overrides: KEY, VALUE, KEY, VALUE, ... to set in the config.
            device: ``"cpu"``, ``"cuda"`` or ``"cuda:N"``; None is MODEL.DEVICE, or the CPU if torch
                finds no GPU.

        Raises:
            UserError: a config or checkpoint is missing or damaged, they do not belong together, or
                the names of the model's classes are not known, or TEST.AUG or TEST.SLIDE does not
                suit the model.
        """
        self.cfg = cfg = read_model_config(model, weights, overrides)
        if device is not None:
            cfg.MODEL.DEVICE = device
        for note in adapt_to_device(cfg):
            logger.info(note)
        if not cfg.MODEL.WEIGHTS:
            raise UserError(
                "MODEL.WEIGHTS is empty; add MODEL.WEIGHTS and the path of a trained checkpoint"
            )
        register_custom_sets(cfg)
        self.task = task_of(cfg)
        self.task.check_test_time(cfg)
        self.metadata = self.task.class_metadata(cfg)
        self.model = build_model(cfg).eval()
        load_weights(self.model, cfg, self.task)
        self._inference_model = inference_model(cfg, self.model)
        self._mapper = build_mapper(cfg, is_train=False)

    @property
    def takes_videos(self) -> bool:
        """Whether the model follows objects through videos; one of images looks at one image."""
        return hasattr(self.model, "track")

    def inputs(self, image: ImageLike, position: int = 0) -> dict[str, Any]:
        """What the evaluation's mapper makes of an image, for the model.

        Args:
            image: the path of a file; a Pillow image; an array (H, W, 3) uint8 in the order RGB, or
                (H, W) uint8, grey; or a tensor (3, H, W) uint8, RGB. Images in memory give what the
                same image gives as a file.
            position: seeds the noise that a denoiser is given.

        Raises:
            UnreadableImageError: the file cannot be read.
            UserError: an array of another shape or dtype, or a model of videos.
        """
        if self.takes_videos:
            raise UserError(
                f"MODEL.META_ARCHITECTURE {self.cfg.MODEL.META_ARCHITECTURE} takes videos, not "
                "images; use Predictor.track"
            )
        is_path = isinstance(image, (str, Path))
        return self.map_record(
            {"file_name": str(image) if is_path else ImageInMemory(image)}, position
        )

    def map_record(self, record: Mapping[str, Any], position: int) -> dict[str, Any]:
        """As :meth:`inputs`, for a record of a data set: ``file_name``, and ``image_id`` if any."""
        return self._mapper({**record, "position": position})

    @torch.no_grad()
    def predict(self, inputs: Sequence[Mapping[str, Any]]) -> list[Prediction]:
        """Run the model on a batch of what :meth:`inputs` made.

        Images of different sizes are padded to one size, which changes the results a little.
        """
        outputs = self._inference_model(list(inputs))
        return [
            Prediction(sample, output, self.cfg, self.task, self.metadata)
            for sample, output in zip(inputs, outputs, strict=True)
        ]

    @overload
    def __call__(self, image: Sequence[ImageLike]) -> list[Prediction]: ...

    @overload
    def __call__(self, image: ImageLike) -> Prediction: ...

    def __call__(self, image: ImageLike | Sequence[ImageLike]) -> Prediction | list[Prediction]:
        """Predict an image, or each image of a list, which gives a list of the same results.

        Args:
            image: as for :meth:`inputs`, or a list or tuple of these.

        Raises:
            UnreadableImageError, UserError: as for :meth:`inputs`.
        """
        if isinstance(image, (list, tuple)):
            return [self(one) for one in image]
        [prediction] = self.predict([self.inputs(image)])
        return prediction

    def track(self, frames: Iterable[np.ndarray]) -> Iterator[TrackedFrame]:
        """Follow the objects of a video of any length, with a bounded number of frames in memory.

        ::

            for frame in predictor.track(Video("street.mp4")):
                print(frame.number, frame.track_ids, frame.masks.shape)

        A model of videos sees clips of TEST.CLIP.FRAMES frames (8 where that is 0). The objects of
        a model of images are linked from frame to frame.

        Args:
            frames: (H, W, 3) uint8, RGB, of one size: a :class:`ddep.inference.video.Video`, a
                :class:`ddep.inference.video.FrameFolder`, or any others. They are read as they are
                needed.

        Yields:
            The frames in order, each when the clips that cover it are done.

        Raises:
            UserError: a model without objects, before anything is read; frames that cannot be read
                or have different sizes, after the tracks of those before.
        """
        if not self.takes_videos:
            check_has_objects(self)
        return track_frames(self, frames)
