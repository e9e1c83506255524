from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from ddep.errors import UserError
from ddep.modeling.backbone.whitened_resnet import early_features, whitening_layers
from tests.modeling.whitened import build_resnet, whitened_config

DEEPLAB = ["MODEL.BACKBONE.NAME", "build_whitened_resnet_deeplab_backbone"]
KINDS = {
    "bottleneck": [],
    "basic blocks": ["MODEL.RESNETS.DEPTH", 18, "MODEL.RESNETS.RES2_OUT_CHANNELS", 64],
    "basic stem": [*DEEPLAB, "MODEL.RESNETS.STEM_TYPE", "basic"],
    "deeplab stem": [*DEEPLAB, "MODEL.RESNETS.STEM_TYPE", "deeplab"],
}


def normal(features: Tensor) -> Tensor:
    """Each channel of each image less its mean, over its standard deviation."""
    mean = features.mean((2, 3), keepdim=True)
    return (features - mean) / ((features - mean).square().mean((2, 3), keepdim=True) + 1e-5).sqrt()


@pytest.mark.parametrize("overrides", KINDS.values(), ids=KINDS.keys())
def test_features_are_normalised_where_robustnet_does_it(overrides):
    cfg = whitened_config(*overrides, "MODEL.RESNETS.NORM", "BN")
    resnet = build_resnet(cfg).eval()
    cfg.MODEL.BACKBONE.NAME = cfg.MODEL.BACKBONE.NAME.replace("whitened_", "")
    plain = build_resnet(cfg).eval()
    images = torch.randn(2, 3, 40, 48, dtype=torch.float64)

    *convolutions, last = plain.stem.children()
    features = images
    for convolution in convolutions:
        features = convolution(features).relu()
    features = F.conv2d(features, last.weight, stride=last.stride, padding=last.padding)
    features = F.max_pool2d(normal(features).relu(), 3, stride=2, padding=1)
    for stage in (plain.res2, plain.res3):
        *blocks, final = stage
        for block in blocks:
            features = block(features)
        residual = features
        *first, closing = [c for name, c in final.named_children() if name.startswith("conv")]
        for convolution in first:
            residual = convolution(residual).relu()
        shortcut = final.shortcut(features) if final.shortcut is not None else features
        features = normal(closing(residual) + shortcut).relu()
    assert (resnet(images)["res3"] - features).abs().max() < 1e-10
    assert torch.equal(early_features(resnet, images), resnet(images)["res3"])


def test_weights_keep_their_names():
    cfg = whitened_config("MODEL.RESNETS.NORM", "BN")
    names = build_resnet(cfg).state_dict().keys()
    cfg.MODEL.BACKBONE.NAME = "build_resnet_backbone"
    missing = build_resnet(cfg).state_dict().keys() ^ names
    assert {name.rpartition(".")[0] for name in missing} == {"stem.conv1.norm"}


def test_there_are_three_layers_in_order():
    resnet = build_resnet(whitened_config())
    assert [layer.num_features for layer in whitening_layers(resnet)] == [4, 8, 16]
    resnet.train()
    assert resnet(torch.randn(1, 3, 40, 48, dtype=torch.float64))["res3"].requires_grad


@pytest.mark.parametrize(
    "overrides",
    [
        ["MODEL.RESNETS.OUT_FEATURES", ["res2"]],
        ["MODEL.RESNETS.DEFORM_ON_PER_STAGE", [False, True, False, False]],
    ],
)
def test_resnets_that_cannot_be_whitened_are_one_line(overrides):
    with pytest.raises(UserError, match="needs res2 and res3 without deformable convolutions"):
        build_resnet(whitened_config(*overrides))
