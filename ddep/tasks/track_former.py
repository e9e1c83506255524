"""Tracking with masks by TrackFormer."""

from __future__ import annotations

from typing import ClassVar

from detectron2.config import CfgNode
from torch import nn

from ddep.config_checks import check_not_negative, check_probability
from ddep.errors import UserError
from ddep.modeling.transformer_decoder import MultiScaleMaskedTransformerDecoder
from ddep.tasks.registry import register_task
from ddep.tasks.video_segmentation import VideoSegmentationTask


@register_task
class TrackFormerTask(VideoSegmentationTask):
    """TrackFormer (arXiv 2101.02702) with Mask2Former's decoders."""

    name: ClassVar = "tracking"
    meta_architectures: ClassVar = ("TrackFormer",)
    decoder: ClassVar = MultiScaleMaskedTransformerDecoder.__name__

    def check(self, cfg: CfgNode) -> list[str]:
        """As :meth:`Task.check`."""
        for name, value in cfg.MODEL.TRACKFORMER.items():
            check = check_not_negative if name == "PATIENCE" else check_probability
            check(f"MODEL.TRACKFORMER.{name}", value)
        if cfg.INPUT.SAMPLING_FRAME_NUM != 2:
            raise UserError(
                f"INPUT.SAMPLING_FRAME_NUM is {cfg.INPUT.SAMPLING_FRAME_NUM}; "
                f"MODEL.META_ARCHITECTURE {cfg.MODEL.META_ARCHITECTURE} trains on 2 frames"
            )
        return super().check(cfg)

    def images_per_sample(self, cfg: CfgNode) -> int:
        """As :meth:`Task.images_per_sample`: frames go through the model one after the other."""
        return 1

    def networks(self, model: nn.Module) -> list[nn.Module]:
        """As :meth:`Task.networks`. What comes after has as many track queries as there are."""
        return [model.backbone, model.sem_seg_head.pixel_decoder]
