"""Segmentation with a class for every pixel: detectron2's SemanticSegmentor."""

from __future__ import annotations

from typing import ClassVar

from detectron2.config import CfgNode
from detectron2.modeling import SEM_SEG_HEADS_REGISTRY
from torch import nn

from ddep.errors import UserError
from ddep.modeling.exportable import Exportable, ExportablePerPixel
from ddep.modeling.meta_arch.data_set_classes import check_num_classes
from ddep.modeling.per_pixel_head import per_pixel_heads
from ddep.modeling.pixel_classifier import PixelClassifier, PixelwiseClassifier
from ddep.tasks.registry import register_task
from ddep.tasks.task import Task, check_registered


@register_task
class PerPixelSegmentationTask(Task):
    """A backbone and a head that classifies pixels.

    Heads are MaskFormer's per-pixel baselines (arXiv 2107.06278), detectron2's DeepLabV3Head and
    DeepLabV3PlusHead (arXiv 1706.05587, 1802.02611), its SemSegFPNHead (arXiv 1901.02446), and
    others that are called with features and labels.
    """

    name: ClassVar = "segmentation"
    meta_architectures: ClassVar = ("SemanticSegmentor",)
    mappers: ClassVar = ("mask_former_semantic",)
    num_classes_key: ClassVar = "MODEL.SEM_SEG_HEAD.NUM_CLASSES"
    exports: ClassVar = ("torch", "onnx")
    class_scores: ClassVar = "logits"

    def check(self, cfg: CfgNode) -> list[str]:
        """As :meth:`Task.check`."""
        check_registered(cfg, "MODEL.SEM_SEG_HEAD.NAME", SEM_SEG_HEADS_REGISTRY)
        notes = super().check(cfg)
        name, possible = cfg.MODEL.SEM_SEG_HEAD.NAME, per_pixel_heads()
        if name not in possible:
            raise UserError(
                f"MODEL.SEM_SEG_HEAD.NAME is {name!r}, which MODEL.META_ARCHITECTURE "
                f"{cfg.MODEL.META_ARCHITECTURE} cannot use; expected one of {', '.join(possible)}"
            )
        check_num_classes(cfg)
        return [*notes, *_check_image_pooling(cfg)]

    def networks(self, model: nn.Module) -> list[nn.Module]:
        """As :meth:`Task.networks`."""
        return [model.backbone, model.sem_seg_head]

    def check_adaptation(self, cfg: CfgNode) -> None:
        """As :meth:`Task.check_adaptation`: it depends on the head."""
        name = cfg.MODEL.SEM_SEG_HEAD.NAME
        head = SEM_SEG_HEADS_REGISTRY.get(name)
        if not (hasattr(head, "layers") and hasattr(head, "losses")):
            raise UserError(
                f"MODEL.SEM_SEG_HEAD.NAME is {name!r}, which has no methods layers and losses, so "
                "that MODEL.ADAPTATION cannot add losses to it; expected DeepLabV3PlusHead or "
                "another head that has them"
            )

    def pixel_classifier(self, cfg: CfgNode, model: nn.Module) -> PixelClassifier:
        """As :meth:`Task.pixel_classifier`."""
        return PixelwiseClassifier(
            model,
            num_classes=cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES,
            ignore_label=cfg.MODEL.SEM_SEG_HEAD.IGNORE_VALUE,
        )

    def exportable(self, cfg: CfgNode, model: nn.Module, *, post_processing: bool) -> Exportable:
        """As :meth:`Task.exportable`."""
        return ExportablePerPixel(
            model, image_format=cfg.INPUT.FORMAT, post_processing=post_processing
        )

    def measured(self, cfg: CfgNode) -> dict[str, str]:
        """As :meth:`Task.measured`."""
        return {"sem_seg": "MODEL.META_ARCHITECTURE"}


def _check_image_pooling(cfg: CfgNode) -> list[str]:
    """What DeepLab's heads make of INPUT.CROP: the window of their image pooling."""
    name, crop = cfg.MODEL.SEM_SEG_HEAD.NAME, cfg.INPUT.CROP
    if not name.startswith("DeepLab") or not crop.ENABLED:
        return []
    if crop.TYPE != "absolute":
        raise UserError(
            f"INPUT.CROP.TYPE is {crop.TYPE!r}; {name} needs absolute: its image pooling has a "
            "window of the size of the crop"
        )
    return [
        f"{name} pools over windows of INPUT.CROP.SIZE {tuple(crop.SIZE)}: training images must be "
        "no smaller, and the sides of test images, or of windows (TEST.SLIDE), multiples of it"
    ]
