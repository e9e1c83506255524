"""Transformer decoders: from the pixel decoder's features to classes and masks."""

from ddep.modeling.transformer_decoder.build import (
    TRANSFORMER_DECODER_REGISTRY,
    build_transformer_decoder,
)
from ddep.modeling.transformer_decoder.mask2former_transformer_decoder import (
    MultiScaleMaskedTransformerDecoder,
)

__all__ = [
    "TRANSFORMER_DECODER_REGISTRY",
    "MultiScaleMaskedTransformerDecoder",
    "build_transformer_decoder",
]
