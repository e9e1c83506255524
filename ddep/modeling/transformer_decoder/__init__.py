"""Transformer decoders: they predict classes and masks from the pixel decoder's features."""

from ddep.modeling.transformer_decoder.build_transformer_decoder import (
    MULTI_SCALE,
    TRANSFORMER_DECODER_REGISTRY,
    build_transformer_decoder,
    is_mask_former,
)
from ddep.modeling.transformer_decoder.mask2former_transformer_decoder import (
    MultiScaleMaskedTransformerDecoder,
)
from ddep.modeling.transformer_decoder.maskformer_transformer_decoder import (
    StandardTransformerDecoder,
)
from ddep.modeling.transformer_decoder.video_mask2former_transformer_decoder import (
    VideoMultiScaleMaskedTransformerDecoder,
)

__all__ = [
    "MULTI_SCALE",
    "TRANSFORMER_DECODER_REGISTRY",
    "MultiScaleMaskedTransformerDecoder",
    "StandardTransformerDecoder",
    "VideoMultiScaleMaskedTransformerDecoder",
    "build_transformer_decoder",
    "is_mask_former",
]
