"""Queries made of Rein's tokens, compared with the formula in float64."""

from __future__ import annotations

import copy

import torch
from torch import nn

from ddep.modeling.backbone.rein import Rein
from ddep.modeling.transformer_decoder.linked_queries import LinkedQueries
from ddep.modeling.transformer_decoder.mask2former_transformer_decoder import (
    MultiScaleMaskedTransformerDecoder,
)


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.rein = Rein(
            depth=3, channels=6, patch_size=2, num_prefix_tokens=1, num_tokens=5, rank=2
        )
        self.decoder = MultiScaleMaskedTransformerDecoder(
            8,
            num_classes=3,
            hidden_dim=8,
            num_queries=5,
            nheads=2,
            dim_feedforward=8,
            dec_layers=3,
            pre_norm=False,
            mask_dim=8,
            enforce_input_project=False,
        )
        self.decoder.link_queries(self.rein.tokens, self.rein.channels)


def test_the_formula() -> None:
    model = Model()
    linked = model.decoder.linked_queries
    state = {name: tensor.double() for name, tensor in linked.state_dict().items()}
    tokens = model.rein.tokens_a.double() @ model.rein.tokens_b.double()
    found = linked()
    for query in range(5):
        blocks = [
            state["transform.weight"] @ tokens[block, query] + state["transform.bias"]
            for block in range(3)
        ]
        # Channel by channel: the largest, the mean and the last.
        summary = []
        for channel in range(8):
            values = [block[channel] for block in blocks]
            summary += [max(values), sum(values) / 3, values[-1]]
        position = state["merge.weight"] @ torch.stack(summary) + state["merge.bias"]
        feature = state["query_feat.weight"] @ position + state["query_feat.bias"]
        torch.testing.assert_close(found[0][query].double(), feature, atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(found[1][query].double(), position, atol=1e-6, rtol=1e-5)


def predict(model: Model) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    scales = [torch.randn(2, 8, side, side, generator=generator) for side in (1, 2, 4)]
    return model.decoder(scales, torch.randn(2, 8, 8, 8, generator=generator))


def test_the_decoder_starts_from_them() -> None:
    model = Model()
    names = [name for name in model.decoder.state_dict() if "quer" in name]
    # Neither queries of its own, nor a second name for the tokens.
    assert names == [
        f"linked_queries.{layer}.{kind}"
        for layer in ("transform", "merge", "query_feat")
        for kind in ("weight", "bias")
    ]
    outputs = predict(model)
    features, positions = (each.detach() for each in model.decoder.linked_queries())
    own = Model().decoder
    own.linked_queries = None
    own.query_feat, own.query_embed = (nn.Embedding(5, 8, _weight=x) for x in (features, positions))
    model.decoder = own
    for name in ("pred_logits", "pred_masks"):
        torch.testing.assert_close(predict(model)[name], outputs[name])


def test_the_losses_reach_the_tokens_of_every_block_and_of_a_copy_only_its_own() -> None:
    model = Model()
    copied = copy.deepcopy(model)
    predict(copied)["pred_logits"].square().sum().backward()
    assert copied.rein.tokens_a.grad.abs().sum((1, 2)).gt(0).all()
    assert model.rein.tokens_a.grad is None
    assert isinstance(copied.decoder.linked_queries, LinkedQueries)
