"""Memory for the backward pass: less with recomputation, none for a frozen backbone."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.distributed as dist
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ddep.engine.execution import prepare_execution
from ddep.errors import UserError
from ddep.modeling.backbone import D2SwinTransformer
from ddep.modeling.pixel_decoder import build_pixel_decoder
from ddep.ops import extension
from tests.modeling.mask_former_config import SMALL, feature_shapes, mask_former_config
from tests.modeling.meta_arch.batches import KINDS, config_of, model_and_batch
from training_memory import SavedTensors


def pixel_decoder_config(name: str, recompute: bool) -> CfgNode:
    return mask_former_config(
        SMALL
        | {
            "MODEL.SEM_SEG_HEAD.PIXEL_DECODER_NAME": name,
            "MODEL.SEM_SEG_HEAD.NORM": "GN",
            "MODEL.MASK_FORMER.DROPOUT": 0.3,
            "MODEL.DDEP.CHECKPOINT_PIXEL_DECODER": recompute,
        }
    )


@pytest.mark.parametrize(
    ("name", "largest"),
    # The second encodes only features of stride 32, and most memory is for the FPN after it.
    [("MSDeformAttnPixelDecoder", 0.7), ("TransformerEncoderPixelDecoder", 0.95)],
)
def test_recomputing_the_pixel_decoder_changes_nothing_but_memory(
    name: str, largest: float
) -> None:
    """Bit for bit, even with dropout: the same random numbers are drawn again."""
    generator = torch.Generator().manual_seed(0)
    features = {
        feature: torch.randn(
            2, shape.channels, 128 // shape.stride, 96 // shape.stride, generator=generator
        )
        for feature, shape in feature_shapes(16).items()
    }
    results, saved, states = [], [], []
    for recompute in (False, True):
        torch.manual_seed(0)
        decoder = build_pixel_decoder(pixel_decoder_config(name, recompute), feature_shapes(16))
        inputs = {key: value.clone().requires_grad_() for key, value in features.items()}
        torch.manual_seed(1)
        with SavedTensors(without=decoder.parameters()) as counter:
            mask_features, _, scales = decoder(inputs)
        saved.append(counter.bytes)
        (mask_features.square().mean() + sum(scale.sum() for scale in scales)).backward()
        leaves = [*decoder.parameters(), *inputs.values()]
        results.append([mask_features, *scales, *(leaf.grad for leaf in leaves)])
        states.append(torch.get_rng_state())
    for one, other in zip(*results, strict=True):
        assert torch.equal(one, other)
    assert torch.equal(*states)
    assert saved[1] < largest * saved[0]


def test_nothing_to_recompute() -> None:
    with pytest.raises(UserError, match="CHECKPOINT_PIXEL_DECODER is True, but BasePixelDecoder"):
        build_pixel_decoder(pixel_decoder_config("BasePixelDecoder", True), feature_shapes(16))


def test_recomputing_swin_saves_memory_with_stochastic_depth() -> None:
    cfg = config_of(KINDS[0])
    cfg.MODEL.SWIN.DROP_PATH_RATE = 0.5
    cfg.MODEL.SWIN.DEPTHS = [2, 2, 2, 2]
    _, batch = model_and_batch(KINDS[0])
    batch = [{k: v.float() if isinstance(v, Tensor) else v for k, v in x.items()} for x in batch]
    torch.manual_seed(0)
    plain = build_model(cfg)
    recomputing = copy.deepcopy(plain)
    recomputing.backbone.use_checkpoint = True
    saved, gradients = [], []
    for model in (plain, recomputing):
        torch.manual_seed(1)
        with SavedTensors(without=model.parameters()) as counter:
            loss = model(batch)["loss_denoise"]
        loss.backward()
        saved.append(counter.bytes)
        gradients.append([parameter.grad for parameter in model.parameters()])
    assert all(torch.equal(one, other) for one, other in zip(*gradients, strict=True))
    assert saved[1] < 0.75 * saved[0]


@pytest.mark.skipif(not extension.use_compiled("cpu"), reason="needs the compiled operators")
def test_swin_keeps_little() -> None:
    """Nothing of a window, no padding, and no output of an activation."""
    torch.manual_seed(0)
    model = D2SwinTransformer(embed_dim=32, depths=[2, 2, 2, 2], num_heads=[1, 2, 4, 8]).train()
    # Windows of 7x7 have 14x14 places for 8x8 tokens.
    with SavedTensors(without=model.parameters()) as counter:
        model(torch.randn(1, 3, 256, 256))
    tokens = [64 * 64 * 32 >> stage for stage in range(4)]
    # A block: both branches' inputs and normalised inputs, query, key and value, the attention's
    # output and the MLP's hidden layer. Besides, a stage's embedding or merging and its last norm.
    block, between = 2 + 2 + 3 + 1 + 4, 6
    assert counter.bytes < 4 * sum(tokens) * (2 * block + between)


@pytest.fixture
def one_process(tmp_path: Any) -> Iterator[None]:
    dist.init_process_group("gloo", f"file://{tmp_path}/meet", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.parametrize("wrapped", ["alone", "parallel", "compiled"])
@pytest.mark.usefixtures("one_process")
@pytest.mark.slow
def test_frozen_backbone_keeps_nothing(wrapped: str) -> None:
    torch._dynamo.reset()
    cfg = config_of(KINDS[1], FREEZE_BACKBONE=True, COMPILE=wrapped == "compiled")
    cfg.MODEL.SWIN.DROP_PATH_RATE = 0.5
    _, batch = model_and_batch(KINDS[1])
    batch = [{k: v.float() if isinstance(v, Tensor) else v for k, v in x.items()} for x in batch]
    model = build_model(cfg)
    prepare_execution(cfg, model, backend="eager")
    parallel = DistributedDataParallel(model) if wrapped == "parallel" else model
    parallel.eval()
    parallel.train()
    seen: dict[str, Any] = {}

    def before(*_: object) -> None:
        seen["before"] = counter.bytes

    def after(backbone: nn.Module, _: object, features: dict[str, Tensor]) -> None:
        seen.update(after=counter.bytes, features=features, training=backbone.training)

    decoder = model.sem_seg_head.pixel_decoder
    with SavedTensors(without=model.parameters()) as counter:
        handles = [model.backbone.register_forward_pre_hook(before)]
        handles.append(model.backbone.register_forward_hook(after))
        losses = parallel(batch[:2])
    sum(losses.values()).backward()
    assert seen["before"] == seen["after"] < counter.bytes
    assert not any(f.requires_grad or f.grad_fn for f in seen["features"].values())
    assert not seen["training"]
    assert all(parameter.grad is None for parameter in model.backbone.parameters())
    assert all(parameter.grad is not None for parameter in decoder.parameters())
