from __future__ import annotations

import pytest
from detectron2.config import CfgNode

from ddep.errors import UserError
from ddep.modeling.transformer_decoder import build_transformer_decoder, is_mask_former
from tests.modeling.mask_former_config import SMALL, mask_former_config

MASKED, STANDARD = "MultiScaleMaskedTransformerDecoder", "StandardTransformerDecoder"


def config(name: str, in_feature: str) -> CfgNode:
    settings = {
        "MODEL.MASK_FORMER.TRANSFORMER_DECODER_NAME": name,
        "MODEL.MASK_FORMER.TRANSFORMER_IN_FEATURE": in_feature,
    }
    return mask_former_config({**SMALL, **settings})


@pytest.mark.parametrize(
    ("name", "in_feature", "expected"),
    [
        (MASKED, "multi_scale_pixel_decoder", MASKED),
        ("auto", "multi_scale_pixel_decoder", MASKED),
        (STANDARD, "res5", STANDARD),
        ("auto", "res5", STANDARD),
        ("auto", "transformer_encoder", STANDARD),
    ],
)
def test_builds_what_the_config_names(name, in_feature, expected):
    cfg = config(name, in_feature)
    assert type(build_transformer_decoder(cfg, 64)).__name__ == expected
    assert is_mask_former(cfg) == (expected == STANDARD)


@pytest.mark.parametrize(
    ("name", "in_feature", "message"),
    [
        ("Detr", "res5", f"DECODER_NAME is 'Detr'; expected auto or one of {MASKED}, {STANDARD}"),
        (MASKED, "res5", f"IN_FEATURE is 'res5'; {MASKED} needs multi_scale_pixel_decoder, or"),
        (STANDARD, "multi_scale_pixel_decoder", f"IN_FEATURE is .*; {STANDARD} needs one feature"),
    ],
)
def test_settings_that_do_not_fit_together(name, in_feature, message):
    with pytest.raises(UserError, match=message):
        build_transformer_decoder(config(name, in_feature), 64)


def test_the_masked_decoder_needs_three_scales():
    cfg = config("auto", "multi_scale_pixel_decoder")
    cfg.MODEL.SEM_SEG_HEAD.IN_FEATURES = ["res2", "res5"]
    with pytest.raises(UserError, match=r"IN_FEATURES is \['res2', 'res5'\]; .* at least 3"):
        build_transformer_decoder(cfg, 64)
