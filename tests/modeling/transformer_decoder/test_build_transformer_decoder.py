from __future__ import annotations

import pytest

from ddep.errors import UserError
from ddep.modeling.transformer_decoder import (
    MultiScaleMaskedTransformerDecoder,
    build_transformer_decoder,
)
from tests.modeling.mask_former_config import SMALL, mask_former_config


def test_builds_what_the_config_names():
    decoder = build_transformer_decoder(mask_former_config(SMALL), 64)
    assert type(decoder) is MultiScaleMaskedTransformerDecoder


def test_unknown_name():
    settings = {
        **SMALL,
        "MODEL.MASK_FORMER.TRANSFORMER_DECODER_NAME": "StandardTransformerDecoder",
    }
    message = "DECODER_NAME is 'StandardTransformerDecoder'; expected .*MultiScaleMasked"
    with pytest.raises(UserError, match=message):
        build_transformer_decoder(mask_former_config(settings), 64)
