"""Rein, compared with its formula in float64, in timm's models run block by block."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ddep.errors import UserError
from ddep.modeling.backbone import TimmBackbone
from ddep.modeling.backbone.rein import Rein

OPTIONS = {"num_tokens": 7, "rank": 3}


def randomise(rein: Rein) -> None:
    """A state in which every part changes the features much more than at the start."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in rein.named_parameters():
            if name == "delta_scale":
                parameter.fill_(0.3)
                continue
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
            if parameter.ndim == 2:
                parameter.div_(parameter.shape[1] ** 0.5)


def refined(rein: Rein, features: Tensor, layer: int, num_prefix: int) -> Tensor:
    """The formula, one patch token at a time, in float64."""
    state = {name: tensor.detach().double() for name, tensor in rein.state_dict().items()}
    tokens = state["tokens_a"][layer] @ state["tokens_b"][layer]
    values = tokens[1:] @ state["values.weight"].T + state["values.bias"]
    result = features.detach().double().clone()
    for image in result:
        for f in image[num_prefix:]:
            logits = torch.stack([f @ token for token in tokens]) / len(f) ** 0.5
            weights = logits.exp() / logits.exp().sum()
            mixed = sum(w * v for w, v in zip(weights[1:], values, strict=True))
            delta = state["refine.weight"] @ (mixed + f) + state["refine.bias"]
            f += state["delta_scale"] * delta
    return result


def test_a_block_is_refined_by_the_formula() -> None:
    rein = Rein(depth=3, channels=8, patch_size=16, num_prefix_tokens=2, **OPTIONS)
    randomise(rein)
    features = torch.randn(2, 6, 8, generator=torch.Generator().manual_seed(1))
    for layer in range(3):
        expected = refined(rein, features, layer, 2)
        torch.testing.assert_close(rein(features, layer).double(), expected, atol=1e-5, rtol=1e-5)


def test_it_begins_with_a_small_change() -> None:
    rein = Rein(depth=1, channels=384, patch_size=16, num_prefix_tokens=0)
    assert rein.tokens().shape == (1, 100, 384)
    assert rein.delta_scale.item() == pytest.approx(0.001)
    bound = (6 / (3 * 16**2 + (384 * 16) ** 0.5)) ** 0.5
    assert 0.9 * bound < rein.tokens_a.abs().max() <= bound
    features = torch.randn(1, 9, 384)
    assert 0 < (rein(features, 0) - features).abs().max() < 0.01


def blocks_of(model: nn.Module, images: Tensor, rein: Rein) -> list[Tensor]:
    """The outputs of all blocks, each refined before the next one."""
    x, arguments = model._pos_embed(model.patch_embed(images)), {}
    if isinstance(x, tuple):  # with rotary positions
        x, arguments["rope"] = x
    x = model.norm_pre(x)
    outputs = []
    for layer, block in enumerate(model.blocks):
        x = block(x, **arguments)
        x = refined(rein, x, layer, model.num_prefix_tokens).float()
        outputs.append(x[:, model.num_prefix_tokens :])
    return outputs


@pytest.mark.parametrize("name", ["test_vit", "test_vit2", "vit_small_patch16_dinov3"])
def test_features_of_refined_blocks(name: str) -> None:
    """With class and register tokens, and with rotary positions."""
    torch.manual_seed(0)
    indices = [0, 1, 2, 3]
    plain = TimmBackbone(name=name, out_indices=indices).eval()
    ours = TimmBackbone(name=name, out_indices=indices, rein=OPTIONS).eval()
    assert ours.load_state_dict(plain.state_dict(), strict=False).unexpected_keys == []
    randomise(ours.rein)
    images = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        expected = blocks_of(plain.model, images, ours.rein)
        features = ours(images)
        assert not torch.allclose(features["res4"], plain(images)["res4"])
    grids = [tokens.transpose(1, 2).unflatten(2, (4, 6)) for tokens in expected]
    torch.testing.assert_close(features["res4"], grids[2], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(features["res5"], F.avg_pool2d(grids[3], 2), atol=1e-4, rtol=1e-4)


def test_a_copy_has_tokens_of_its_own() -> None:
    model = TimmBackbone(name="test_vit", rein=OPTIONS).eval()
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        before = model(images)["res5"]
        copied = copy.deepcopy(model)
        randomise(model.rein)
        assert torch.equal(copied(images)["res5"], before)
        assert not torch.equal(model(images)["res5"], before)


def test_gradients_reach_all_tokens() -> None:
    model = TimmBackbone(name="test_vit", rein=OPTIONS)
    sum(feature.square().mean() for feature in model(torch.randn(2, 3, 64, 64)).values()).backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in model.rein.parameters())


@pytest.mark.parametrize("adapter", ["rein", "lora"])
def test_other_models_than_plain_ones_are_refused(adapter: str) -> None:
    options = {"rein": OPTIONS, "lora": {"rank": 2, "alpha": 4.0}}[adapter]
    with pytest.raises(UserError, match="but convnext_atto is not a plain vision transformer"):
        TimmBackbone(name="convnext_atto", **{adapter: options})
