"""LoRA, compared with a layer whose weight is changed."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ddep.errors import UserError
from ddep.modeling.backbone import TimmBackbone
from ddep.modeling.backbone.lora import LoRALinear


@pytest.mark.parametrize("bias", [False, True])
def test_the_output_is_that_of_the_changed_weight(bias: bool) -> None:
    torch.manual_seed(0)
    linear = nn.Linear(6, 5, bias=bias)
    adapted = LoRALinear(linear, rank=2, alpha=3.0)
    features = torch.randn(4, 7, 6)
    assert torch.equal(adapted(features), linear(features))
    with torch.no_grad():
        adapted.lora_b.normal_()
    weight = linear.weight.double() + 3.0 / 2 * adapted.lora_b.double() @ adapted.lora_a.double()
    expected = F.linear(features.double(), weight, linear.bias.double() if bias else None)
    torch.testing.assert_close(adapted(features).double(), expected, atol=1e-5, rtol=1e-5)
    assert adapted.state_dict().keys() - linear.state_dict().keys() == {"lora_a", "lora_b"}


@pytest.mark.parametrize("name", ["test_vit", "vit_small_patch16_dinov3"])
def test_every_attention_is_adapted_from_a_start_at_zero(name: str) -> None:
    torch.manual_seed(0)
    indices = [0, 1, 2, 3]
    plain = TimmBackbone(name=name, out_indices=indices).eval()
    adapted = TimmBackbone(name=name, out_indices=indices, lora={"rank": 2, "alpha": 2.0}).eval()
    missing, unexpected = adapted.load_state_dict(plain.state_dict(), strict=False)
    assert unexpected == []
    assert len(missing) == 4 * 2 * 2  # four blocks, two layers, two matrices
    assert all(name.endswith((".lora_a", ".lora_b")) for name in missing)
    images = torch.randn(1, 3, 64, 64)
    for ours, theirs in zip(adapted(images).values(), plain(images).values(), strict=True):
        torch.testing.assert_close(ours, theirs)
    sum(feature.square().mean() for feature in adapted(images).values()).backward()
    trained = dict(adapted.named_parameters())
    assert all(trained[name].grad.abs().sum() > 0 for name in missing if name.endswith("lora_b"))


def test_attention_that_does_not_call_its_layers_is_refused() -> None:
    with pytest.raises(UserError, match=r"^MODEL\.LORA\.RANK is 2, but eva02_tiny.*set it to 0"):
        TimmBackbone(name="eva02_tiny_patch14_224", lora={"rank": 2, "alpha": 2.0})
