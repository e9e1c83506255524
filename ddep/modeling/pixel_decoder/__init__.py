"""Pixel decoders: they compute mask features and multi-scale features from a backbone's."""

from ddep.modeling.pixel_decoder.build_pixel_decoder import build_pixel_decoder
from ddep.modeling.pixel_decoder.fpn import BasePixelDecoder, TransformerEncoderPixelDecoder
from ddep.modeling.pixel_decoder.msdeformattn import MSDeformAttnPixelDecoder

__all__ = [
    "BasePixelDecoder",
    "MSDeformAttnPixelDecoder",
    "TransformerEncoderPixelDecoder",
    "build_pixel_decoder",
]
