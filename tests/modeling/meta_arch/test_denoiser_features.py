"""The denoising pretrainer that also predicts the encoder's features of the clean image."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from detectron2.modeling import build_model

import ddep.modeling.backbone  # noqa: F401
from ddep.errors import UserError
from tests.modeling.meta_arch.small_denoiser import noisy_input, small_config


def test_features_of_the_clean_image():
    """Compared with the encoder's own features of the clean image, enlarged twice."""
    cfg = small_config()
    cfg.MODEL.DDEP.FEATURE_WEIGHT = 0.5
    cfg.MODEL.DDEP.FEATURE = "res4"
    torch.manual_seed(0)
    model = build_model(cfg)
    decoded = []
    model.denoising_head.register_forward_pre_hook(lambda _, args: decoded.append(args[0]))
    batch = [noisy_input(i, 64, 96, 0.5) for i in range(2)]
    losses = model(batch)
    assert set(losses) == {"loss_denoise", "loss_features"}
    clean = torch.stack([x["clean"] for x in batch])
    with torch.no_grad():
        large = F.interpolate(clean, (128, 192), mode="bicubic", align_corners=False)
        features = model.backbone(large)["res4"].double()
    centred = features - features.mean(dim=1, keepdim=True)
    truth = centred / (centred.square().mean(dim=1, keepdim=True) + 1e-5).sqrt()
    predicted = F.avg_pool2d(model.denoising_head.features(decoded[0]).double(), 2)
    expected = 0.5 * (predicted - truth).square().mean()
    torch.testing.assert_close(losses["loss_features"].double(), expected, rtol=1e-4, atol=0)
    losses["loss_features"].backward()
    assert model.sem_seg_head.pixel_decoder.mask_features.weight.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in model.backbone.parameters())


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("FEATURE_WEIGHT", -1.0, "FEATURE_WEIGHT is -1.0; expected a number of at least 0"),
        ("FEATURE", "res6", "FEATURE is 'res6'; expected one of res2, res3, res4, res5"),
        ("FEATURE_ENLARGEMENT", 0, "FEATURE_ENLARGEMENT is 0; expected at least 1"),
        ("FREEZE_BACKBONE", False, "an encoder that does not learn"),
    ],
)
def test_mistakes_about_features_of_the_clean_image(key, value, message):
    cfg = small_config()
    cfg.MODEL.DDEP.FEATURE_WEIGHT = 1.0
    cfg.MODEL.DDEP[key] = value
    with pytest.raises(UserError, match=message):
        build_model(cfg)
