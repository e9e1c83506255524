"""Queries besides the learned ones, in Mask2Former's decoder."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from ddep.modeling.transformer_decoder.extra_queries import ExtraQueries, pad_queries
from tests.modeling.transformer_decoder.test_mask2former_transformer_decoder import (
    build,
    random_inputs,
)

LEARNED = 10


def random_queries(*counts: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    return [torch.randn(count, 64, generator=generator) for count in counts]


def assert_same(found: dict[str, Any], expected: dict[str, Any], rows: slice = slice(None)) -> None:
    for name in ("pred_logits", "pred_masks", "queries", "embeddings"):
        torch.testing.assert_close(found[name], expected[name][:, rows], rtol=1e-4, atol=1e-4)


def test_padding() -> None:
    first, second = random_queries(1, 3)
    extra = pad_queries([first, second, []])
    assert extra.valid.tolist() == [[True, False, False], [True] * 3, [False] * 3]
    assert torch.equal(extra.content[extra.valid], torch.cat([first, second]))
    assert not extra.content[~extra.valid].any()
    assert pad_queries([[], []]) is None


@pytest.mark.parametrize("pre_norm", [False, True])
@torch.no_grad()
def test_an_image_does_not_see_the_padding_that_others_need(pre_norm: bool) -> None:
    decoder = build(PRE_NORM=pre_norm)
    scales, mask_features = random_inputs()
    queries = random_queries(1, 3)
    extra = pad_queries(queries)
    together = decoder(scales, mask_features, extra)
    assert together["pred_logits"].shape[1] == LEARNED + 3
    # Nor what stands there.
    noisy = ExtraQueries(extra.content + 9.0 * ~extra.valid[..., None], extra.valid)
    of_noisy = decoder(scales, mask_features, noisy)
    for image, of_image in enumerate(queries):
        alone = decoder(
            [scale[image : image + 1] for scale in scales],
            mask_features[image : image + 1],
            pad_queries([of_image]),
        )
        for batch in (together, of_noisy):
            row = {name: batch[name][image : image + 1] for name in batch if name != "aux_outputs"}
            assert_same(alone, row, slice(LEARNED + len(of_image)))


@torch.no_grad()
def test_extra_queries_are_learned_queries_without_a_position() -> None:
    decoder, larger = build(), build(NUM_OBJECT_QUERIES=LEARNED + 3)
    state = decoder.state_dict()
    (extra,) = random_queries(3)
    state["query_feat.weight"] = torch.cat([state["query_feat.weight"], extra])
    state["query_embed.weight"] = torch.cat([state["query_embed.weight"], torch.zeros(3, 64)])
    larger.load_state_dict(state)
    found = decoder(*random_inputs(), pad_queries([extra, extra]))
    assert_same(found, larger(*random_inputs()))
    # They matter to the others, which attend to them.
    without = decoder(*random_inputs())
    assert not torch.allclose(without["pred_logits"], found["pred_logits"][:, :LEARNED])


@torch.no_grad()
def test_queries_become_embeddings() -> None:
    decoder = build()
    outputs = decoder(*random_inputs())
    assert torch.equal(decoder.decoder_norm(outputs["queries"]), outputs["embeddings"])
