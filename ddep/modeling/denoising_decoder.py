"""Decoders that denoising can pretrain, behind one interface.

:class:`~ddep.modeling.meta_arch.DenoisingPretrainer` holds the decoder as ``sem_seg_head``, so its
weights have the same names as in the model that is fine-tuned. To add a decoder, subclass
:class:`DenoisingDecoder` and add it to :data:`DECODERS`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import FPN, Backbone
from detectron2.projects.deeplab import DeepLabV3PlusHead
from torch import Tensor, nn
from torch.nn import functional as F

from ddep.errors import UserError
from ddep.modeling.denoising_head import MULTI_SCALE_STRIDES, UPSAMPLING
from ddep.modeling.pixel_decoder import build_pixel_decoder

Features = Mapping[str, Tensor]


class DenoisingDecoder(nn.Module, ABC):
    """Turns a backbone's features into those that the denoising heads read.

    Attributes:
        mask_dim: channels of the features at stride 4.
        scale_dim: channels of the features at strides 8, 16 and 32; None if there are none.
    """

    mask_dim: int
    scale_dim: int | None = None

    @classmethod
    @abstractmethod
    def build(cls, cfg: CfgNode, backbone: Backbone) -> DenoisingDecoder:
        """Build the decoder that ``cfg`` describes.

        Raises:
            UserError: ``cfg`` describes no such decoder, or one without the scales that
                MODEL.DDEP.MULTI_SCALE needs.
        """

    @abstractmethod
    def forward(self, features: Features) -> tuple[Tensor, list[Tensor]]:
        """Decode features.

        Args:
            features: the backbone's, name -> (B, channels, H/stride, W/stride).

        Returns:
            (B, mask_dim, H/4, W/4), and the scales: (B, scale_dim, H/s, W/s) for s = 32, 16, 8, or
            nothing. Every weight of the decoder takes part in one of them.
        """


class PixelDecoding(DenoisingDecoder):
    """A pixel decoder of (Mask2)MaskFormer: ``sem_seg_head.pixel_decoder.*``."""

    def __init__(self, pixel_decoder: nn.Module, mask_dim: int, scale_dim: int) -> None:
        """
        Args:
            pixel_decoder: see :func:`ddep.modeling.pixel_decoder.build_pixel_decoder`.
            mask_dim: channels of its mask features.
            scale_dim: channels of its scales.
        """
        super().__init__()
        self.pixel_decoder = pixel_decoder
        self.mask_dim = mask_dim
        self.scale_dim = scale_dim

    @classmethod
    def build(cls, cfg: CfgNode, backbone: Backbone) -> PixelDecoding:
        """As :meth:`DenoisingDecoder.build`."""
        head, shapes = cfg.MODEL.SEM_SEG_HEAD, backbone.output_shape()
        if cfg.MODEL.DDEP.MULTI_SCALE:
            # All pixel decoders make their scales from the coarsest features.
            strides = sorted(shapes[name].stride for name in head.IN_FEATURES if name in shapes)
            if tuple(strides[-len(MULTI_SCALE_STRIDES) :]) != MULTI_SCALE_STRIDES:
                raise UserError(
                    "MODEL.DDEP.MULTI_SCALE is True, but MODEL.SEM_SEG_HEAD.IN_FEATURES "
                    f"{list(head.IN_FEATURES)} have strides {_join(strides)}; expected "
                    f"{_join(MULTI_SCALE_STRIDES)} to be the largest"
                )
        return cls(build_pixel_decoder(cfg, shapes), head.MASK_DIM, head.CONVS_DIM)

    def forward(self, features: Features) -> tuple[Tensor, list[Tensor]]:
        """As :meth:`DenoisingDecoder.forward`."""
        mask_features, _, scales = self.pixel_decoder(features)
        return mask_features, scales


class FPNDecoding(DenoisingDecoder):
    """The FPN of a backbone such as ``build_resnet_fpn_backbone``: ``backbone.fpn_*``.

    The backbone computes it. Here its levels are added up at stride 4 (as in Panoptic FPN, Kirillov
    et al., 2019, arXiv 1901.02446, section 3, without the convolutions), so that all of them learn.
    """

    def __init__(self, levels: Mapping[str, int], channels: int) -> None:
        """
        Args:
            levels: names of the features and their strides, 4 among them.
            channels: channels of each feature.
        """
        super().__init__()
        self.levels = dict(sorted(levels.items(), key=lambda level: level[1]))
        self.mask_dim = channels
        if set(MULTI_SCALE_STRIDES) <= set(levels.values()):
            self.scale_dim = channels

    @classmethod
    def build(cls, cfg: CfgNode, backbone: Backbone) -> FPNDecoding:
        """As :meth:`DenoisingDecoder.build`."""
        if not isinstance(backbone, FPN):
            raise UserError(
                f"MODEL.DDEP.DECODER is fpn, but MODEL.BACKBONE.NAME is {cfg.MODEL.BACKBONE.NAME}, "
                "which has no FPN; expected a backbone such as build_resnet_fpn_backbone"
            )
        levels = {name: shape.stride for name, shape in backbone.output_shape().items()}
        needed = {UPSAMPLING, *(MULTI_SCALE_STRIDES if cfg.MODEL.DDEP.MULTI_SCALE else ())}
        if min(levels.values()) != UPSAMPLING or not needed <= set(levels.values()):
            raise UserError(
                f"MODEL.FPN.IN_FEATURES {list(cfg.MODEL.FPN.IN_FEATURES)} make levels of the "
                f"strides {_join(levels.values())}; denoising needs {_join(sorted(needed))}"
            )
        divisor, divisibility = backbone.size_divisibility, cfg.MODEL.MASK_FORMER.SIZE_DIVISIBILITY
        if divisibility >= 0 and (divisibility == 0 or divisibility % divisor):
            raise UserError(
                f"MODEL.MASK_FORMER.SIZE_DIVISIBILITY is {divisibility}; the FPN needs a multiple "
                f"of {divisor}, or -1 for its own"
            )
        return cls(levels, cfg.MODEL.FPN.OUT_CHANNELS)

    def forward(self, features: Features) -> tuple[Tensor, list[Tensor]]:
        """As :meth:`DenoisingDecoder.forward`."""
        finest, *others = (features[name] for name in self.levels)
        total = finest
        for level in others:
            total = total + F.interpolate(
                level, finest.shape[-2:], mode="bilinear", align_corners=False
            )
        if self.scale_dim is None:
            return total, []
        names = {stride: name for name, stride in self.levels.items()}
        return total, [features[names[s]] for s in sorted(MULTI_SCALE_STRIDES, reverse=True)]


class DeepLabDecoding(DeepLabV3PlusHead, DenoisingDecoder):
    """DeepLabV3+'s decoder, detectron2's, without its predictor: ``sem_seg_head.decoder.*``."""

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        """The arguments of :class:`DeepLabV3PlusHead`, for images of any size."""
        cfg = cfg.clone()
        cfg.defrost()
        # By INPUT.CROP.SIZE the head would pool over parts of images, and refuse other sizes.
        cfg.INPUT.CROP.ENABLED = False
        return super().from_config(cfg, input_shape) | {"num_classes": None}

    @classmethod
    def build(cls, cfg: CfgNode, backbone: Backbone) -> DeepLabDecoding:
        """As :meth:`DenoisingDecoder.build`."""
        head, shapes = cfg.MODEL.SEM_SEG_HEAD, backbone.output_shape()
        if cfg.MODEL.DDEP.MULTI_SCALE:
            raise UserError(
                "MODEL.DDEP.MULTI_SCALE is True, but MODEL.DDEP.DECODER deeplab has no features at "
                f"strides {_join(MULTI_SCALE_STRIDES)}; expected False"
            )
        unknown = [name for name in head.IN_FEATURES if name not in shapes]
        if unknown:
            raise UserError(
                f"MODEL.SEM_SEG_HEAD.IN_FEATURES has {unknown[0]}; the backbone's features are "
                f"{', '.join(shapes)}"
            )
        strides = sorted(shapes[name].stride for name in head.IN_FEATURES)
        if strides[:1] != [UPSAMPLING]:
            raise UserError(
                f"MODEL.SEM_SEG_HEAD.IN_FEATURES {list(head.IN_FEATURES)} have strides "
                f"{_join(strides)}; denoising needs {UPSAMPLING} to be the smallest"
            )
        if len(head.PROJECT_CHANNELS) != len(strides) - 1:
            raise UserError(
                f"MODEL.SEM_SEG_HEAD.PROJECT_CHANNELS is {list(head.PROJECT_CHANNELS)}; expected "
                f"{len(strides) - 1}, one for each of IN_FEATURES but the coarsest"
            )
        decoder = cls(cfg, shapes)
        decoder.mask_dim = head.CONVS_DIM
        return decoder

    def forward(self, features: Features) -> tuple[Tensor, list[Tensor]]:
        """As :meth:`DenoisingDecoder.forward`."""
        return self.layers(features), []


# By the value of MODEL.DDEP.DECODER.
DECODERS: dict[str, type[DenoisingDecoder]] = {
    "pixel_decoder": PixelDecoding,
    "fpn": FPNDecoding,
    "deeplab": DeepLabDecoding,
}


def build_denoising_decoder(cfg: CfgNode, backbone: Backbone) -> DenoisingDecoder:
    """Build the decoder that ``MODEL.DDEP.DECODER`` names.

    Raises:
        UserError: there is no such decoder, or ``cfg`` does not describe one.
    """
    name = cfg.MODEL.DDEP.DECODER
    if name not in DECODERS:
        raise UserError(f"MODEL.DDEP.DECODER is {name!r}; expected one of {', '.join(DECODERS)}")
    return DECODERS[name].build(cfg, backbone)


def _join(strides: Any) -> str:
    return ", ".join(map(str, strides)) or "that are unknown"
