"""The meta-architecture of Mask2Former for videos: clips in, losses or instances out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import Any, ClassVar, NamedTuple

import torch
from detectron2.config import CfgNode, configurable
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.structures import ImageList, Instances
from torch import Tensor

from ddep.errors import UserError
from ddep.modeling.clip_criterion import ClipCriterion
from ddep.modeling.mask_rows import Resize
from ddep.modeling.meta_arch.mask_classifier import MaskClassifier
from ddep.modeling.meta_arch.training_samples import annotations, name_of, padded_masks
from ddep.modeling.tracking import ClipTracker, FrameTracks, video_results
from ddep.modeling.video_postprocessing import video_instance_inference


class ClipLogits(NamedTuple):
    """What the network says about one clip, before post-processing.

    Attributes:
        mask_cls: (Q, K+1) float32 class logits; the last class is no-object.
        mask_pred: (Q, T, h, w) float32 mask logits of the padded frames, at the network's
            resolution.
        embeddings: (Q, C) float32, the queries after the last layer, normalised.
        padded_size: height and width of the padded frames that the network saw.
        image_size: height and width of the frames, at the top left of the padded ones.
        output_size: height and width of the results.
    """

    mask_cls: Tensor
    mask_pred: Tensor
    embeddings: Tensor
    padded_size: tuple[int, int]
    image_size: tuple[int, int]
    output_size: tuple[int, int]


@META_ARCH_REGISTRY.register()
class VideoMaskFormer(MaskClassifier):
    """Video instance segmentation: a query is one object in all frames of a clip.

    Mask2Former for videos (Cheng et al., 2021, arXiv 2112.10764). Modules and parameters are those
    of :class:`MaskFormer`.
    """

    criterion_class: ClassVar = ClipCriterion

    @configurable
    def __init__(
        self,
        *,
        max_detections: int,
        whole_videos: bool,
        clip_tracker: ClipTracker,
        **parts: Any,
    ) -> None:
        """
        Args:
            max_detections: largest number of instances per video.
            whole_videos: evaluation takes a video as one clip.
            clip_tracker: how :meth:`track`, or else evaluation, cuts videos into clips and links
                their instances.
            parts: see :class:`MaskClassifier`; the head's transformer decoder takes
                ``num_frames``.
        """
        super().__init__(**parts)
        self.max_detections = max_detections
        self.whole_videos = whole_videos
        self.clip_tracker = clip_tracker

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Read the arguments of ``__init__`` from a config.

        Raises:
            UserError: the config does not fit the data set.
        """
        return {
            **cls.parts(cfg),
            "max_detections": cfg.TEST.DETECTIONS_PER_VIDEO,
            "whole_videos": cfg.TEST.CLIP.FRAMES == 0,
            "clip_tracker": ClipTracker.from_config(cfg),
        }

    def forward(
        self,
        batched_inputs: list[dict[str, Any]],
        normalisers: Mapping[str, Tensor] | None = None,
    ) -> dict[str, Tensor] | list[dict[str, Any]]:
        """Compute losses of clips in training, instances of videos in evaluation.

        Args:
            batched_inputs: one dict per video: ``image``, T frames (3, H, W), 0..255; in training
                ``instances``, for each frame the same N objects in the same order, with
                ``gt_classes`` (N,) int64 and ``gt_masks`` (N, H, W) bool, all False where the
                object is not in the frame; in evaluation ``height`` and ``width``, the size of the
                results (default: the frames'). All clips of a training batch have as many frames.
            normalisers: as for :meth:`MaskFormer.forward`.

        Returns:
            In training a dict of weighted losses. In evaluation one dict per video, see
            :func:`video_instance_inference`.

        Raises:
            UserError: frames of different sizes in evaluation, a training clip without annotations
                or with a class out of range.
        """
        if not self.training:
            return [self._video(inputs) for inputs in batched_inputs]
        num_frames = len(batched_inputs[0]["image"])
        for inputs in batched_inputs:
            if len(inputs["image"]) != num_frames:
                raise ValueError(
                    f"{name_of(inputs)}: {len(inputs['image'])} frames, but the batch's first clip "
                    f"has {num_frames}"
                )
        images = self.prepare_images(
            [frame for inputs in batched_inputs for frame in inputs["image"]]
        )
        outputs = self.sem_seg_head(self.backbone(images.tensor), num_frames=num_frames)
        targets = self._prepare_targets(batched_inputs, images)
        return self.weighted_losses(outputs, targets, batched_inputs, normalisers)

    def num_objects(self, inputs: dict[str, Any]) -> int:
        """As :meth:`MaskClassifier.num_objects`; an object counts once in a clip."""
        return len(self._annotations(inputs)[0])

    def predict_clip(
        self, frames: Sequence[Tensor], output_size: tuple[int, int] | None = None
    ) -> ClipLogits:
        """Run the network on a clip, in evaluation.

        Args:
            frames: T of (3, H, W), 0..255.
            output_size: height and width of the results; None takes the frames'.

        Raises:
            UserError: frames of different sizes.
        """
        check_frames(frames, "a clip")
        images = self.prepare_images(frames)
        outputs = self.sem_seg_head(self.backbone(images.tensor), num_frames=len(frames))
        image_size = tuple(images.image_sizes[0])
        return ClipLogits(
            outputs["pred_logits"][0].float(),
            outputs["pred_masks"][0].float(),
            outputs["embeddings"][0].float(),
            padded_size=tuple(images.tensor.shape[-2:]),
            image_size=image_size,
            output_size=output_size or image_size,
        )

    def track(
        self, frames: Iterable[Tensor], output_size: tuple[int, int]
    ) -> Iterator[FrameTracks]:
        """Follow the objects of a video of any length, in evaluation.

        Args:
            frames: (3, H, W), 0..255, all of one size; they are read when they are needed.
            output_size: height and width of the masks.

        Yields:
            The tracks of each frame, in order.

        Raises:
            UserError: frames of different sizes.
        """
        predict_clip = partial(self.predict_clip, output_size=output_size)
        return self.clip_tracker.track(predict_clip, frames)

    def _video(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """The instances of a video, as one clip or clip by clip."""
        frames = inputs["image"]
        check_frames(list(islice(frames, 1)), name_of(inputs))
        height, width = frames[0].shape[-2:]
        size = inputs.get("height", height), inputs.get("width", width)
        if not self.whole_videos:
            return video_results(self.track(frames, size), size, self.max_detections)
        check_frames(frames, name_of(inputs))
        clip = self.predict_clip(frames, size)
        with torch.autocast(self.device.type, enabled=False):
            return video_instance_inference(
                clip.mask_cls,
                clip.mask_pred,
                (
                    Resize(clip.padded_size, kept=clip.image_size),
                    Resize(clip.output_size, kept=clip.output_size),
                ),
                max_detections=self.max_detections,
            )

    def _prepare_targets(
        self, batched_inputs: list[dict[str, Any]], images: ImageList
    ) -> list[dict[str, Tensor]]:
        """Labels (N,) and masks (N, T, H, W) of each clip on the model's device, masks padded."""
        targets, sizes = [], iter(images.image_sizes)
        for inputs in batched_inputs:
            of_frames = self._annotations(inputs)
            masks = [
                padded_masks(instances.gt_masks, inputs, next(sizes), images)
                for instances in of_frames
            ]
            targets.append(
                {
                    "labels": of_frames[0].gt_classes.to(self.device),
                    "masks": torch.stack(masks, dim=1),
                }
            )
        return targets

    def _annotations(self, inputs: dict[str, Any]) -> list[Instances]:
        """The instances of each frame, checked."""
        of_frames = annotations(inputs)
        self.check_classes(of_frames[0].gt_classes, inputs)
        return of_frames


def check_frames(frames: Sequence[Tensor], name: str) -> None:
    """Raise :class:`UserError` unless a clip has frames, all of one size."""
    if len(frames) == 0:
        raise UserError(f"{name}: no frames; expected at least one")
    first = tuple(frames[0].shape[-2:])
    for number, frame in enumerate(frames):
        if tuple(frame.shape[-2:]) != first:
            raise UserError(
                f"{name}: frame {number} (counted from 0) has size {tuple(frame.shape[-2:])}, the "
                f"first one {first}; expected frames of one size"
            )
