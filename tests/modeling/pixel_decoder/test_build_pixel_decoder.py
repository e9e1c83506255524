from __future__ import annotations

import pytest

from ddep.errors import UserError
from ddep.modeling.pixel_decoder import build_pixel_decoder
from tests.modeling.mask_former_config import SMALL, feature_shapes, mask_former_config

NAMES = ["BasePixelDecoder", "MSDeformAttnPixelDecoder", "TransformerEncoderPixelDecoder"]


@pytest.mark.parametrize("name", NAMES)
def test_builds_what_the_config_names(name):
    settings = {**SMALL, "MODEL.SEM_SEG_HEAD.PIXEL_DECODER_NAME": name}
    decoder = build_pixel_decoder(mask_former_config(settings), feature_shapes(16))
    assert type(decoder).__name__ == name


# The second is one of detectron2's heads, which is not a pixel decoder.
@pytest.mark.parametrize("name", ["FPN", "SemSegFPNHead"])
def test_unknown_name(name):
    settings = {**SMALL, "MODEL.SEM_SEG_HEAD.PIXEL_DECODER_NAME": name}
    message = f"PIXEL_DECODER_NAME is '{name}'; expected one of {', '.join(NAMES)}$"
    with pytest.raises(UserError, match=message):
        build_pixel_decoder(mask_former_config(settings), feature_shapes(16))
