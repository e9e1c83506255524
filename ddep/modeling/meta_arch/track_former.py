"""The meta-architecture of TrackFormer with masks: pairs of frames in, losses or tracks out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

import torch
from detectron2.config import CfgNode, configurable
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.structures import ImageList
from torch import Tensor

from ddep.errors import UserError
from ddep.modeling.eval_mode import eval_mode
from ddep.modeling.mask_rows import Resize
from ddep.modeling.meta_arch.mask_classifier import MaskClassifier
from ddep.modeling.meta_arch.training_samples import annotations, name_of, padded_masks
from ddep.modeling.track_criterion import TrackCriterion
from ddep.modeling.track_plan import TrackPlan, plan_track_queries, track_query_rows
from ddep.modeling.tracking.exclusive_masks import exclusive_masks
from ddep.modeling.tracking.frame_tracks import FrameTracks
from ddep.modeling.tracking.query_tracker import QueryTracker
from ddep.modeling.tracking.video_results import video_results
from ddep.modeling.transformer_decoder.extra_queries import ExtraQueries, pad_queries


@META_ARCH_REGISTRY.register()
class TrackFormer(MaskClassifier):
    """Tracks with masks: the query of an object in one frame is its query in the next.

    TrackFormer (Meinhardt et al., 2022, arXiv 2101.02702) with Mask2Former's decoders instead of
    DETR's. Modules and parameters are those of :class:`MaskFormer`.
    """

    criterion_class: ClassVar = TrackCriterion

    @configurable
    def __init__(
        self,
        *,
        false_negatives: float,
        false_positives: float,
        new_tracker: Callable[[], QueryTracker],
        **parts: Any,
    ) -> None:
        """
        Args:
            false_negatives, false_positives: see :func:`plan_track_queries`.
            new_tracker: makes what follows the objects of one video.
            parts: see :class:`MaskClassifier`; the head's transformer decoder takes
                ``extra_queries``.
        """
        super().__init__(**parts)
        self.false_negatives = false_negatives
        self.false_positives = false_positives
        self.new_tracker = new_tracker

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Read the arguments of ``__init__`` from a config.

        Raises:
            UserError: the config does not fit the data set.
        """
        track_former = cfg.MODEL.TRACKFORMER
        return {
            **cls.parts(cfg),
            "false_negatives": track_former.FALSE_NEGATIVES,
            "false_positives": track_former.FALSE_POSITIVES,
            "new_tracker": partial(
                QueryTracker,
                num_queries=cfg.MODEL.MASK_FORMER.NUM_OBJECT_QUERIES,
                detection_score=track_former.DETECTION_SCORE,
                track_score=track_former.TRACK_SCORE,
                duplicate_overlap=track_former.DUPLICATE_OVERLAP,
                patience=track_former.PATIENCE,
            ),
        }

    def normalisers(self, batched_inputs: list[dict[str, Any]]) -> dict[str, float]:
        """As :meth:`MaskClassifier.normalisers`, of second frames and their track queries."""
        return self.criterion.track_normalisers(
            [self._plan(inputs) for inputs in batched_inputs],
            [self.num_objects(inputs) for inputs in batched_inputs],
            self.sem_seg_head.num_queries,
        )

    def num_objects(self, inputs: dict[str, Any]) -> int:
        """As :meth:`MaskClassifier.num_objects`, of the second frame."""
        return len(self._rows(inputs, 1))

    def forward(
        self,
        batched_inputs: list[dict[str, Any]],
        normalisers: Mapping[str, Tensor] | None = None,
    ) -> dict[str, Tensor] | list[dict[str, Any]]:
        """Compute losses of pairs of frames in training, tracks of videos in evaluation.

        Args:
            batched_inputs: one dict per video: ``image``, T frames (3, H, W), 0..255; in training
                T is 2, and there are ``instances``, for each frame the same N objects in the same
                order, with ``gt_classes`` (N,) int64, ``gt_ids`` (N,) int64, -1 where the object is
                not in the frame, and ``gt_masks`` (N, H, W) bool; and ``seed``, an integer from
                which the track queries to drop and to add are drawn. In evaluation ``height`` and
                ``width``, the size of the results (default: the frames').
            normalisers: as for :meth:`MaskFormer.forward`.

        Returns:
            In training a dict of weighted losses of the second frame. In evaluation one dict per
            video, see :func:`video_results`: every track once.

        Raises:
            UserError: a training sample without annotations, with a class out of range or with
                another number of frames.
        """
        if not self.training:
            return [self._video(inputs) for inputs in batched_inputs]
        plans = [self._plan(inputs) for inputs in batched_inputs]
        track_queries = self._track_queries(batched_inputs, plans)
        images = self.prepare_images([inputs["image"][1] for inputs in batched_inputs])
        outputs = self.sem_seg_head(self.backbone(images.tensor), extra_queries=track_queries)
        targets = self._targets(batched_inputs, 1, images)
        for target, plan in zip(targets, plans, strict=True):
            target["tracked"] = torch.tensor(plan.all_targets, dtype=torch.int64)
        return self.weighted_losses(outputs, targets, batched_inputs, normalisers)

    def track(
        self, frames: Iterable[Tensor], output_size: tuple[int, int]
    ) -> Iterator[FrameTracks]:
        """Follow the objects of a video of any length, in evaluation.

        Args:
            frames: (3, H, W), 0..255, all of one size.
            output_size: height and width of the masks.

        Yields:
            The tracks of each frame, in order, as soon as the frame is read. Their masks do not
            overlap.
        """
        tracker = self.new_tracker()
        for number, frame in enumerate(frames):
            yield self._next_frame(tracker, number, frame, output_size)

    def _video(self, inputs: dict[str, Any]) -> dict[str, Any]:
        frames = inputs["image"]
        height, width = frames[0].shape[-2:]
        size = inputs.get("height", height), inputs.get("width", width)
        return video_results(self.track(frames, size), size)

    @torch.no_grad()
    def _next_frame(
        self,
        tracker: QueryTracker,
        number: int,
        frame: Tensor,
        output_size: tuple[int, int],
    ) -> FrameTracks:
        images = self.prepare_images([frame])
        image_size = tuple(images.image_sizes[0])
        outputs = self.sem_seg_head(
            self.backbone(images.tensor), extra_queries=pad_queries([tracker.queries])
        )
        with torch.autocast(self.device.type, enabled=False):
            class_probabilities = outputs["pred_logits"][0].float().softmax(-1)[:, :-1]
            logits = outputs["pred_masks"][0].float()
            tracks, rows = tracker.update(class_probabilities, logits, outputs["queries"][0])
            masks = exclusive_masks(
                logits[rows],
                (
                    Resize(tuple(images.tensor.shape[-2:]), kept=image_size),
                    Resize(output_size, kept=output_size),
                ),
            )
        is_seen = masks.flatten(1).any(1).cpu()
        known = [track.class_probabilities for track in tracks]
        return FrameTracks(
            number,
            [track.id for track, seen in zip(tracks, is_seen.tolist(), strict=True) if seen],
            (torch.stack(known) if known else class_probabilities[:0]).cpu()[is_seen],
            masks.cpu()[is_seen],
        )

    @torch.no_grad()
    def _track_queries(
        self, batched_inputs: list[dict[str, Any]], plans: Sequence[TrackPlan]
    ) -> ExtraQueries | None:
        """What the first frames say of the objects that ``plans`` follow, without gradient."""
        images = self.prepare_images([inputs["image"][0] for inputs in batched_inputs])
        with eval_mode(self.sem_seg_head.predictor):  # which then predicts from its last layer only
            outputs = self.sem_seg_head(self.backbone(images.tensor))
        # Older versions of torch would use what autocast cast without gradient again below
        # (PyTorch issue 112583).
        torch.clear_autocast_cache()
        targets = self._targets(batched_inputs, 0, images)
        labels = [target["labels"] for target in targets]
        costs = self.criterion.matcher.compute_costs(
            [outputs], labels, torch.cat([target["masks"] for target in targets])
        )
        (matches,) = self.criterion.matcher(costs, [len(of_image) for of_image in labels])
        inside = outputs["pred_masks"].flatten(2) > 0
        return pad_queries(
            [
                queries[track_query_rows(plan, pairs, masks)]
                for queries, masks, plan, pairs in zip(
                    outputs["queries"], inside, plans, matches, strict=True
                )
            ]
        )

    def _plan(self, inputs: dict[str, Any]) -> TrackPlan:
        """The track queries of a training sample, the same each time."""
        first, second = (
            instances.gt_ids[self._rows(inputs, frame)].tolist()
            for frame, instances in enumerate(annotations(inputs))
        )
        return plan_track_queries(
            first,
            second,
            num_queries=self.sem_seg_head.num_queries,
            false_negatives=self.false_negatives,
            false_positives=self.false_positives,
            generator=torch.Generator().manual_seed(inputs["seed"]),
        )

    def _targets(
        self, batched_inputs: list[dict[str, Any]], frame: int, images: ImageList
    ) -> list[dict[str, Tensor]]:
        """Labels (N,) and masks (N, H, W) of a frame of each sample, masks padded."""
        targets = []
        for inputs, image_size in zip(batched_inputs, images.image_sizes, strict=True):
            instances = annotations(inputs)[frame]
            rows = self._rows(inputs, frame)
            masks = padded_masks(instances.gt_masks[rows], inputs, image_size, images)
            targets.append({"labels": instances.gt_classes[rows].to(self.device), "masks": masks})
        return targets

    def _rows(self, inputs: dict[str, Any], frame: int) -> Tensor:
        """The rows of a frame's objects that are in it, checked; (N,) int64.

        Of the first frame no more than there are queries: the others have none to follow.
        """
        of_frames = annotations(inputs)
        if len(of_frames) != 2:
            raise UserError(
                f"{name_of(inputs)}: {len(of_frames)} frames, but TrackFormer trains on 2; set "
                "INPUT.SAMPLING_FRAME_NUM to 2"
            )
        self.check_classes(of_frames[frame].gt_classes, inputs)
        rows = (of_frames[frame].gt_ids >= 0).nonzero()[:, 0]
        return rows[: self.sem_seg_head.num_queries] if frame == 0 else rows
