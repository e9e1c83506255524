from __future__ import annotations

import torch
from detectron2.modeling import build_backbone
from torchvision.models import resnet50
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.ops import FrozenBatchNorm2d

from ddep.checkpoint.conversion import convert
from tests.checkpoint.conversion.converting import config_of, randomise


@torch.no_grad()
def test_features_are_those_of_torchvisions_dilated_resnet() -> None:
    torch.manual_seed(0)
    dilation = [False, False, True]
    theirs = resnet50(norm_layer=FrozenBatchNorm2d, replace_stride_with_dilation=dilation)
    randomise(theirs)
    conversion = convert(theirs.state_dict())
    keys = {**conversion.config, "MODEL.BACKBONE.NAME": "build_dc5_resnet_backbone"}
    ours = build_backbone(config_of(keys)).eval()
    weights = {n.removeprefix("backbone."): t for n, t in conversion.weights.items()}
    ours.load_state_dict(weights)
    images = torch.randn(1, 3, 90, 130)
    expected = IntermediateLayerGetter(theirs, {"layer3": "res4", "layer4": "res5"})(images)
    found = ours(images)
    for name in ("res4", "res5"):
        assert found[name].shape[-2:] == (6, 9)
        torch.testing.assert_close(found[name], expected[name], atol=1e-4, rtol=1e-4)
