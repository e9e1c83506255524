"""Video instance segmentation by mask classification."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from detectron2.config import CfgNode
from detectron2.data import Metadata

from ddep.drawing.tracks import draw_video_outputs
from ddep.errors import UserError
from ddep.modeling.transformer_decoder import VideoMultiScaleMaskedTransformerDecoder
from ddep.modeling.transformer_decoder.build_transformer_decoder import transformer_decoder_name
from ddep.tasks.mask_classification import MaskClassificationTask
from ddep.tasks.registry import register_task


@register_task
class VideoSegmentationTask(MaskClassificationTask):
    """Mask2Former for videos (arXiv 2112.10764).

    Attributes:
        decoder: the registered name of the transformer decoder that the model needs.
    """

    name: ClassVar = "video-segmentation"
    meta_architectures: ClassVar = ("VideoMaskFormer",)
    mappers: ClassVar = ("mask_former_video_instance",)
    decoder: ClassVar = VideoMultiScaleMaskedTransformerDecoder.__name__

    def check(self, cfg: CfgNode) -> list[str]:
        """As :meth:`Task.check`."""
        decoder = transformer_decoder_name(cfg)
        if decoder != self.decoder:
            raise UserError(
                f"MODEL.MASK_FORMER.TRANSFORMER_DECODER_NAME is "
                f"{cfg.MODEL.MASK_FORMER.TRANSFORMER_DECODER_NAME!r} ({decoder}), but "
                f"MODEL.META_ARCHITECTURE {cfg.MODEL.META_ARCHITECTURE} needs {self.decoder}"
            )
        return super().check(cfg)

    def images_per_sample(self, cfg: CfgNode) -> int:
        """As :meth:`Task.images_per_sample`: the frames of a clip."""
        return cfg.INPUT.SAMPLING_FRAME_NUM

    def measured(self, cfg: CfgNode) -> dict[str, str]:
        """As :meth:`Task.measured`."""
        return dict.fromkeys(("video_segm", "tracking"), "MODEL.META_ARCHITECTURE")

    def draw(
        self,
        cfg: CfgNode,
        inputs: Mapping[str, Any],
        outputs: Mapping[str, Any],
        metadata: Metadata | None,
    ) -> np.ndarray:
        """As :meth:`Task.draw`: some frames in a row, each object in one colour."""
        return draw_video_outputs(inputs["file_names"], outputs, metadata)
