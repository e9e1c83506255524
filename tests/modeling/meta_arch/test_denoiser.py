"""The denoising pretrainer: losses, padding, freezing, estimates, names."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from detectron2.modeling import Backbone, build_model
from torch import nn

import ddep.modeling.backbone  # noqa: F401
from ddep.errors import UserError
from ddep.modeling.denoising_loss import DenoisingLoss
from ddep.modeling.meta_arch.denoiser import DenoisingPretrainer
from ddep.noise import add_noise
from tests.modeling.meta_arch.small_denoiser import noisy_input, small_config, swin_config


class PixelsAsFeatures(Backbone):
    """4x4 pixels become 48 channels, so each pixel's prediction depends only on that pixel."""

    def forward(self, x):
        return {"res2": F.pixel_unshuffle(x, 4)}


class PassOn(nn.Module):
    def forward(self, features):
        return features["res2"], []


class TimesWeight(nn.Module):
    """Predicts ``weight`` times the noisy pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(0.6))
        self.multi_scale = nn.ModuleDict()

    def forward(self, mask_features):
        return F.pixel_shuffle(mask_features, 4) * self.weight


def pointwise_model(formulation: str = "scaled", **changes) -> DenoisingPretrainer:
    loss = {"target": "noise", "loss": "l2", "denoise_weight": 1.0, "scale_weight": 1.0}
    return DenoisingPretrainer(
        backbone=PixelsAsFeatures(),
        decoder=PassOn(),
        denoising_head=TimesWeight(),
        denoising_loss=DenoisingLoss(**(loss | changes)),
        freeze_backbone=False,
        formulation=formulation,
        size_divisibility=32,
    )


FORMULAS = {
    "l2": lambda d: d**2,
    "l1": np.abs,
    "huber": lambda d: np.where(np.abs(d) < 1, d**2 / 2, np.abs(d) - 0.5),
}


@pytest.mark.parametrize("formulation", ["scaled", "additive"])
@pytest.mark.parametrize("target", ["noise", "image"])
@pytest.mark.parametrize("loss", list(FORMULAS))
def test_loss_of_a_padded_batch_is_the_mean_over_its_pixels(loss, target, formulation):
    """Compared pixel by pixel in float64: padding and the image of a pixel must not matter."""
    model = pointwise_model(loss=loss, target=target, formulation=formulation)
    batch = [
        noisy_input(0, 20, 37, 0.3, formulation),
        noisy_input(1, 64, 33, 1.4, formulation),
        noisy_input(2, 7, 64, 0.8, formulation),
    ]
    losses = model(batch)
    assert list(losses) == ["loss_denoise"]
    truth = {"noise": "noise", "image": "clean"}[target]
    differences = np.concatenate(
        [(0.6 * x["image"].double() - x[truth].double()).numpy().ravel() for x in batch]
    )
    expected = FORMULAS[loss](differences).mean()
    assert losses["loss_denoise"].item() == pytest.approx(expected, rel=1e-5)


def test_padded_batch_is_the_pixel_weighted_mean_of_single_images():
    model = pointwise_model()
    batch = [noisy_input(0, 20, 37, 0.3), noisy_input(1, 64, 33, 1.4)]
    pixels = np.array([20 * 37, 64 * 33])
    singles = [model([x])["loss_denoise"].item() for x in batch]
    together = model(batch)["loss_denoise"].item()
    assert together == pytest.approx(np.average(singles, weights=pixels), rel=1e-5)
    assert together != pytest.approx(np.mean(singles), rel=1e-2)


def test_predicting_nothing_scores_one():
    model = pointwise_model()
    nn.init.zeros_(model.denoising_head.weight)
    loss = model([noisy_input(0, 256, 256, 0.48)])["loss_denoise"]
    assert loss.item() == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize(("loss", "function"), [("l2", F.mse_loss), ("l1", F.l1_loss)])
def test_multi_scale_losses(loss, function):
    """Each head is compared with the clean image at its own size, with weight 1/3."""
    cfg = small_config()
    cfg.MODEL.DDEP.MULTI_SCALE = True
    cfg.MODEL.DDEP.LOSS = loss
    torch.manual_seed(0)
    model = build_model(cfg)
    predictions = {}
    for stride in (8, 16, 32):
        model.denoising_head.multi_scale[f"s{stride}"].register_forward_hook(
            lambda _, __, output, stride=stride: predictions.update({stride: output})
        )
    batch = [noisy_input(i, 64, 96, 0.5) for i in range(2)]
    losses = model(batch)
    assert set(losses) == {"loss_denoise", *(f"loss_denoise_s{s}" for s in (8, 16, 32))}
    clean = torch.stack([x["clean"] for x in batch])
    for stride, prediction in predictions.items():
        small = F.interpolate(clean, scale_factor=4 / stride, mode="area")
        torch.testing.assert_close(
            losses[f"loss_denoise_s{stride}"], function(prediction, small) / 3
        )


def test_weights_of_the_losses():
    """The weight of the scales is shared by the three."""
    cfg = small_config()
    cfg.MODEL.DDEP.MULTI_SCALE = True
    batch = [noisy_input(0, 64, 96, 0.5)]
    found = []
    for weights in ((1.0, 1.0), (0.5, 3.0)):
        cfg.MODEL.DDEP.DENOISE_WEIGHT, cfg.MODEL.DDEP.SCALE_WEIGHT = weights
        torch.manual_seed(0)
        found.append(build_model(cfg)(batch))
    for name, loss in found[0].items():
        factor = 0.5 if name == "loss_denoise" else 3.0
        torch.testing.assert_close(found[1][name], factor * loss)


@pytest.mark.parametrize("formulation", ["scaled", "additive"])
@pytest.mark.parametrize("target", ["noise", "image"])
def test_estimates_are_cropped_and_combine_to_the_input(target, formulation):
    model = pointwise_model(target=target, formulation=formulation).eval()
    batch = [noisy_input(0, 20, 37, 0.3, formulation), noisy_input(1, 64, 33, 1.4, formulation)]
    with torch.no_grad():
        outputs = model(batch)
    for x, output in zip(batch, outputs, strict=True):
        predicted = output["noise" if target == "noise" else "denoised"]
        torch.testing.assert_close(predicted, 0.6 * x["image"])
        assert output["noise"].shape == output["denoised"].shape == x["image"].shape
        again = add_noise(output["denoised"], output["noise"], x["sigma"], formulation)
        torch.testing.assert_close(again, x["image"])


@pytest.mark.parametrize("backbone", ["build_resnet_backbone", "TimmBackbone"])
@pytest.mark.parametrize("multi_scale", [False, True])
def test_frozen_backbone(multi_scale, backbone):
    """It has no gradients and keeps its statistics; all the rest learns."""
    cfg = small_config()
    cfg.MODEL.BACKBONE.NAME = backbone
    cfg.MODEL.DDEP.TIMM.NAME = "resnet10t"
    cfg.MODEL.DDEP.MULTI_SCALE = multi_scale
    torch.manual_seed(0)
    model = build_model(cfg)
    outputs = {}
    model.backbone.register_forward_hook(lambda _, __, output: outputs.update(output))
    before = {k: v.clone() for k, v in model.backbone.state_dict().items()}
    assert any(name.endswith("running_mean") for name in before)
    model.eval().train()
    assert model.training
    assert model.sem_seg_head.training
    assert not any(module.training for module in model.backbone.modules())
    sum(model([noisy_input(0, 64, 64, 0.5)]).values()).backward()
    assert len(outputs) == 4
    assert not any(output.requires_grad for output in outputs.values())
    for name, parameter in model.named_parameters():
        frozen = name.startswith("backbone.")
        assert parameter.requires_grad is not frozen, name
        assert (parameter.grad is None) is frozen, name
    for name, value in model.backbone.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_model_is_frozen_as_soon_as_it_is_built():
    model = build_model(small_config())
    assert model.training
    assert not model.backbone.training


def test_frozen_swin_has_no_stochastic_depth():
    cfg = swin_config()
    cfg.MODEL.SWIN.DROP_PATH_RATE = 0.9
    torch.manual_seed(0)
    model = build_model(cfg)
    first, second = (model([noisy_input(0, 64, 64, 0.5)])["loss_denoise"] for _ in range(2))
    assert torch.equal(first, second)
    nn.Module.train(model.backbone)
    assert not torch.equal(first, model([noisy_input(0, 64, 64, 0.5)])["loss_denoise"])


@pytest.mark.parametrize("multi_scale", [False, True])
def test_without_freezing_everything_learns(multi_scale):
    cfg = small_config()
    cfg.MODEL.DDEP.FREEZE_BACKBONE = False
    cfg.MODEL.DDEP.MULTI_SCALE = multi_scale
    torch.manual_seed(0)
    model = build_model(cfg)
    before = model.backbone.stem.conv1.norm.running_mean.clone()
    sum(model([noisy_input(0, 64, 64, 0.5)]).values()).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []
    assert model.backbone.stem.conv1.weight.grad.abs().sum() > 0
    assert not torch.equal(model.backbone.stem.conv1.norm.running_mean, before)


def test_parameter_names_are_those_of_the_fine_tuned_model():
    model = build_model(small_config())
    groups = {name.split(".")[0] for name in model.state_dict()}
    assert groups == {"backbone", "sem_seg_head", "denoising_head"}
    assert "sem_seg_head.pixel_decoder.mask_features.weight" in model.state_dict()
    assert all(
        name.startswith("sem_seg_head.pixel_decoder.")
        for name in model.state_dict()
        if name.startswith("sem_seg_head")
    )


def test_adam_lowers_the_loss_on_one_image():
    torch.manual_seed(0)
    model = build_model(small_config())
    learning = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(learning, lr=3e-3)
    losses = []
    for _ in range(25):
        loss = model([noisy_input(0, 64, 64, 0.5)])["loss_denoise"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 < losses[0]


def test_images_need_not_be_multiples_of_the_stride():
    """Without padding, the sizes of a ResNet's features are rounded up; predictions are cropped."""
    cfg = small_config()
    cfg.MODEL.MASK_FORMER.SIZE_DIVISIBILITY = 0
    cfg.MODEL.DDEP.MULTI_SCALE = True
    torch.manual_seed(0)
    model = build_model(cfg)
    image = noisy_input(0, 45, 70, 0.5)
    assert all(torch.isfinite(loss) for loss in model([image]).values())
    predictions = []
    model.denoising_head.register_forward_hook(lambda *call: predictions.append(call[-1]))
    [estimates] = model.eval()([image])
    assert predictions[0].shape == (1, 3, 48, 72)
    assert torch.equal(estimates["noise"], predictions[0][0, :, :45, :70])


@pytest.mark.parametrize(
    ("size_divisibility", "expected"), [(32, (64, 96)), (48, (48, 96)), (-1, (44, 70))]
)
def test_size_divisibility(size_divisibility, expected):
    """A negative value takes the backbone's own, which pads nothing for a ResNet."""
    cfg = small_config()
    cfg.MODEL.MASK_FORMER.SIZE_DIVISIBILITY = size_divisibility
    model = build_model(cfg).eval()
    seen = []
    model.backbone.register_forward_hook(lambda _, args, __: seen.append(args[0].shape[-2:]))
    model([noisy_input(0, 44, 70, 0.5)])
    assert seen == [expected]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("MODEL.DDEP.NOISE", "salt"),
        ("MODEL.DDEP.TARGET", "labels"),
        ("MODEL.DDEP.LOSS", "l3"),
        ("MODEL.DDEP.DENOISE_WEIGHT", -1.0),
        ("MODEL.DDEP.SCALE_WEIGHT", float("inf")),
        ("MODEL.SEM_SEG_HEAD.COMMON_STRIDE", 8),
    ],
)
def test_impossible_values_name_their_key(key, value):
    cfg = small_config()
    cfg.merge_from_list([key, value])
    with pytest.raises(UserError, match=f"{key} is {value!r}; "):
        build_model(cfg)


@pytest.mark.parametrize("multi_scale", [False, True])
@pytest.mark.parametrize(
    "name", ["BasePixelDecoder", "TransformerEncoderPixelDecoder", "MSDeformAttnPixelDecoder"]
)
def test_every_pixel_decoder_learns_to_denoise(name, multi_scale):
    cfg = swin_config()
    cfg.MODEL.SEM_SEG_HEAD.PIXEL_DECODER_NAME = name
    cfg.MODEL.DDEP.MULTI_SCALE = multi_scale
    torch.manual_seed(0)
    model = build_model(cfg)
    batch = [noisy_input(0, 32, 64, 0.5), noisy_input(1, 20, 37, 0.5)]
    learning = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(learning, lr=3e-3)
    totals = []
    for _ in range(5):
        losses = model(batch)
        assert len(losses) == (4 if multi_scale else 1)
        total = sum(losses.values())
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        totals.append(total.item())
    assert totals[-1] < 0.95 * totals[0]
    assert [
        name for name, p in model.named_parameters() if p.requires_grad and p.grad is None
    ] == []
    estimates = model.eval()(batch)
    assert [x["noise"].shape for x in estimates] == [(3, 32, 64), (3, 20, 37)]


def test_multi_scale_denoising_needs_its_scales():
    cfg = swin_config()
    cfg.MODEL.SEM_SEG_HEAD.PIXEL_DECODER_NAME = "BasePixelDecoder"
    cfg.MODEL.SEM_SEG_HEAD.IN_FEATURES = ["res2", "res3", "res5"]
    build_model(cfg)
    cfg.MODEL.DDEP.MULTI_SCALE = True
    message = "MULTI_SCALE is True, but .* have strides 4, 8, 32; expected 8, 16, 32 to be the larg"
    with pytest.raises(UserError, match=message):
        build_model(cfg)
