"""Per-pixel segmentation as a function of tensors."""

from __future__ import annotations

from detectron2.modeling.meta_arch import SemanticSegmentor
from torch import Tensor

from ddep.modeling.exportable.exportable import Exportable


class ExportablePerPixel(Exportable):
    """detectron2's SemanticSegmentor: class scores or classes of pixels."""

    def __init__(
        self, model: SemanticSegmentor, *, image_format: str, post_processing: bool
    ) -> None:
        """
        Args:
            model: in evaluation mode.
            image_format: see :class:`Exportable`.
            post_processing: results are classes instead of scores.
        """
        super().__init__(
            pixel_mean=model.pixel_mean.flatten().tolist(),
            pixel_std=model.pixel_std.flatten().tolist(),
            image_format=image_format,
            size_divisibility=model.backbone.size_divisibility,
        )
        self.backbone = model.backbone
        self.sem_seg_head = model.sem_seg_head
        self.post_processing = post_processing
        if post_processing:
            self.describes = {"semantic": "(B, H, W) int64, the class of each pixel"}
        else:
            self.describes = {"sem_seg": "(B, K, H, W) float32, logits of classes"}

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """As :meth:`Exportable.forward`."""
        height, width = images.shape[-2:]
        logits, _ = self.sem_seg_head(self.backbone(self.pad(self.normalise(images))))
        logits = logits[..., :height, :width]
        if not self.post_processing:
            return {"sem_seg": logits}
        return {"semantic": logits.argmax(1)}
