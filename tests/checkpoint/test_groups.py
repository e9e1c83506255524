from __future__ import annotations

import pytest

from ddep.checkpoint import check_transfer
from ddep.checkpoint.groups import group_of, own_groups
from ddep.errors import UserError


@pytest.mark.parametrize(
    ("name", "group"),
    [
        ("backbone.layers.0.blocks.1.attn.qkv.weight", "backbone"),
        ("sem_seg_head.pixel_decoder.input_proj.2.0.weight", "encoder"),
        ("sem_seg_head.pixel_decoder.transformer.level_embed", "encoder"),
        ("sem_seg_head.pixel_decoder.adapter_1.norm.bias", "fpn"),
        ("sem_seg_head.pixel_decoder.layer_1.weight", "fpn"),
        ("sem_seg_head.pixel_decoder.mask_features.weight", "mask_features"),
        # MaskFormer's pixel decoders: FPN, and with a transformer encoder.
        ("sem_seg_head.pixel_decoder.layer_4.norm.weight", "fpn"),
        ("sem_seg_head.pixel_decoder.adapter_3.weight", "fpn"),
        ("sem_seg_head.pixel_decoder.input_proj.weight", "encoder"),
        ("sem_seg_head.pixel_decoder.transformer.encoder.layers.0.norm1.bias", "encoder"),
        ("sem_seg_head.predictor.query_feat.weight", "predictor"),
        ("criterion.empty_weight", "criterion"),
        ("denoising_head.multi_scale.s8.0.weight", "denoising_head"),
        # detectron2's models: an FPN is not part of the encoder; DeepLabV3+; R-CNN; classifiers.
        ("backbone.bottom_up.res2.0.conv1.weight", "backbone"),
        ("backbone.fpn_lateral2.weight", "fpn"),
        ("backbone.fpn_output5.norm.weight", "fpn"),
        ("backbone.top_block.p6.weight", "fpn"),
        ("backbone.fpn.weight", "backbone"),
        ("sem_seg_head.decoder.res5.project_conv.convs.0.weight", "fpn"),
        ("proposal_generator.rpn_head.conv.weight", "proposal_generator"),
        ("roi_heads.box_predictor.cls_score.weight", "roi_heads"),
        ("head.cls_score.weight", "head"),
        ("classifier.weight", "head"),
        ("backbone_of_another_kind.weight", "other"),
        ("pixel_mean", "other"),
    ],
)
def test_names_of_the_whole_model_have_their_group(name: str, group: str) -> None:
    assert group_of(name) == group


def test_an_unknown_group_is_named_with_the_known_ones() -> None:
    check_transfer(["fpn", "backbone"])
    with pytest.raises(UserError, match=r"TRANSFER has 'decoder'; expected any of backbone, enc"):
        check_transfer(["backbone", "decoder"])


def test_a_models_own_patterns_come_first() -> None:
    own = {r"backbone\.neck\.": "fpn", r"trunk\.": "backbone", r"memory\.": "memory"}
    names = ("backbone.neck.weight", "backbone.conv.weight", "trunk.weight", "memory.bank", "a.b")
    assert [group_of(name, own) for name in names] == [
        "fpn",
        "backbone",
        "backbone",
        "memory",
        "other",
    ]
    assert own_groups(object()) == {}
