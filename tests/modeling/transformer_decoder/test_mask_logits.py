from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ddep.modeling.transformer_decoder.mask_logits import mask_logits

LAYERS, IMAGES, QUERIES, CHANNELS = 3, 2, 5, 4


def random_inputs(dtype: torch.dtype = torch.float64) -> tuple[list[Tensor], Tensor]:
    generator = torch.Generator().manual_seed(0)
    embeddings = [
        torch.randn(IMAGES, QUERIES, CHANNELS, dtype=dtype, generator=generator, requires_grad=True)
        for _ in range(LAYERS)
    ]
    features = torch.randn(
        IMAGES, CHANNELS, 6, 7, dtype=dtype, generator=generator, requires_grad=True
    )
    return embeddings, features


def matched(layer: int, masks: Tensor) -> Tensor:
    """Some queries of a layer, in the first layer none of the second image."""
    images, queries = [([0, 0], [4, 1]), ([0, 1], [0, 3]), ([0, 1, 1], [2, 3, 4])][layer]
    return masks[images, queries]


def losses(masks: tuple[Tensor, ...], layers: list[int]) -> Tensor:
    return torch.stack([matched(layer, masks[layer]).sin().sum() for layer in layers]).sum()


@pytest.mark.parametrize("layers", [[0, 1, 2], [2], [0]])
@pytest.mark.parametrize("compiling", [False, True])
def test_matches_products_layer_by_layer(
    layers: list[int], compiling: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Masks, and gradients of losses of matched masks, whatever rows the products take."""
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: compiling)
    embeddings, features = random_inputs()
    found = mask_logits(embeddings, features)
    expected = [torch.einsum("bqc,bchw->bqhw", one, features) for one in embeddings]
    for one, other in zip(found, expected, strict=True):
        assert one.is_contiguous()
        torch.testing.assert_close(one, other)
    leaves = [features, *(embeddings[layer] for layer in layers)]
    for one, other in zip(
        torch.autograd.grad(losses(found, layers), leaves),
        torch.autograd.grad(losses(tuple(expected), layers), leaves),
        strict=True,
    ):
        torch.testing.assert_close(one, other)


def test_gradient_without_any_match_is_zero() -> None:
    embeddings, features = random_inputs()
    sum((masks * 0).sum() for masks in mask_logits(embeddings, features)).backward()
    assert all(leaf.grad is not None and not leaf.grad.any() for leaf in (features, *embeddings))


def test_gradients_that_are_not_finite_stay_so() -> None:
    embeddings, features = random_inputs()
    masks = mask_logits(embeddings, features)
    (masks[1][0, 2, 3, 4] * float("nan")).backward()
    assert embeddings[1].grad[0, 2].isnan().all()
    assert features.grad[0, :, 3, 4].isnan().all()


def test_half_precision_embeddings_decide() -> None:
    embeddings, features = random_inputs(torch.float32)
    [masks] = mask_logits([embeddings[0].bfloat16()], features)
    assert masks.dtype == torch.bfloat16
    masks.float().square().sum().backward()
    assert embeddings[0].grad.dtype == features.grad.dtype == torch.float32
    expected = torch.einsum("bqc,bchw->bqhw", embeddings[0], features)
    torch.testing.assert_close(masks.float(), expected, rtol=0.05, atol=0.05)


def test_compiled_gradients_are_the_same() -> None:
    embeddings, features = random_inputs()
    compiled = torch.compile(mask_logits, backend="aot_eager", fullgraph=True)
    leaves = [features, *embeddings]
    layers = list(range(LAYERS))
    for one, other in zip(
        torch.autograd.grad(losses(compiled(embeddings, features), layers), leaves),
        torch.autograd.grad(losses(mask_logits(embeddings, features), layers), leaves),
        strict=True,
    ):
        torch.testing.assert_close(one, other)
