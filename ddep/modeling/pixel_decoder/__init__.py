"""Pixel decoders: from a backbone's features to mask features and the transformer's scales."""

from ddep.modeling.pixel_decoder.build_pixel_decoder import build_pixel_decoder
from ddep.modeling.pixel_decoder.fpn import BasePixelDecoder, TransformerEncoderPixelDecoder
from ddep.modeling.pixel_decoder.msdeformattn import MSDeformAttnPixelDecoder

__all__ = [
    "BasePixelDecoder",
    "MSDeformAttnPixelDecoder",
    "TransformerEncoderPixelDecoder",
    "build_pixel_decoder",
]
