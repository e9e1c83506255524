"""Names and shapes of all weights in a published Mask2Former checkpoint, counted by hand.

Written from the papers' descriptions (Swin, arXiv 2103.14030; ResNet, 1512.03385; Deformable DETR,
2010.04159; Mask2Former, 2112.01527) and the names in the checkpoints; no model is asked.
"""

from __future__ import annotations

from collections.abc import Sequence

Shapes = dict[str, tuple[int, ...]]

# Every width of Mask2Former's own modules, the sampled points aside.
DIM, PIXEL_FFN, DECODER_FFN, MASK_DIM = 256, 1024, 2048, 256
HEADS, LEVELS, POINTS = 8, 3, 4
ENCODER_LAYERS, DECODER_LAYERS = 6, 9


def _linear(name: str, inputs: int, outputs: int, bias: bool = True) -> Shapes:
    shapes: Shapes = {f"{name}.weight": (outputs, inputs)}
    return {**shapes, f"{name}.bias": (outputs,)} if bias else shapes


def _conv(name: str, inputs: int, outputs: int, size: int, bias: bool = True) -> Shapes:
    shapes = _linear(name, inputs, outputs, bias)
    return {**shapes, f"{name}.weight": (outputs, inputs, size, size)}


def _norm(name: str, dim: int) -> Shapes:
    return {f"{name}.weight": (dim,), f"{name}.bias": (dim,)}


def _join(*parts: Shapes) -> Shapes:
    """Join all parts; their names must not overlap."""
    joined = {name: shape for part in parts for name, shape in part.items()}
    assert len(joined) == sum(map(len, parts))
    return joined


def swin(embed_dim: int, depths: Sequence[int], heads: Sequence[int], window: int) -> Shapes:
    """``backbone.*`` of Swin, buffers included."""
    parts = [_conv("patch_embed.proj", 3, embed_dim, 4), _norm("patch_embed.norm", embed_dim)]
    for stage, (depth, number_of_heads) in enumerate(zip(depths, heads, strict=True)):
        dim = embed_dim * 2**stage
        for index in range(depth):
            block = f"layers.{stage}.blocks.{index}"
            parts += [
                _norm(f"{block}.norm1", dim),
                {
                    f"{block}.attn.relative_position_bias_table": (
                        (2 * window - 1) ** 2,
                        number_of_heads,
                    ),
                    f"{block}.attn.relative_position_index": (window**2, window**2),
                },
                _linear(f"{block}.attn.qkv", dim, 3 * dim),
                _linear(f"{block}.attn.proj", dim, dim),
                _norm(f"{block}.norm2", dim),
                _linear(f"{block}.mlp.fc1", dim, 4 * dim),
                _linear(f"{block}.mlp.fc2", 4 * dim, dim),
            ]
        if stage < 3:
            reduction = f"layers.{stage}.downsample"
            parts.append(_norm(f"{reduction}.norm", 4 * dim))
            parts.append(_linear(f"{reduction}.reduction", 4 * dim, 2 * dim, bias=False))
        parts.append(_norm(f"norm{stage}", dim))
    return _prefix("backbone", _join(*parts))


def resnet(blocks: Sequence[int], frozen: bool) -> Shapes:
    """``backbone.*`` of a bottleneck ResNet; a batch norm that is not frozen counts its batches."""

    def conv(name: str, inputs: int, outputs: int, size: int) -> Shapes:
        norm = f"{name}.norm"
        counter: Shapes = {} if frozen else {f"{norm}.num_batches_tracked": ()}
        statistics: Shapes = {
            f"{norm}.running_mean": (outputs,),
            f"{norm}.running_var": (outputs,),
        }
        weights = _conv(name, inputs, outputs, size, bias=False)
        return _join(weights, _norm(norm, outputs), statistics, counter)

    parts = [conv("stem.conv1", 3, 64, 7)]
    inputs = 64
    for stage, depth in enumerate(blocks):
        width, outputs = 64 * 2**stage, 256 * 2**stage
        for index in range(depth):
            block = f"res{stage + 2}.{index}"
            if index == 0:
                parts.append(conv(f"{block}.shortcut", inputs, outputs, 1))
            parts.append(conv(f"{block}.conv1", inputs, width, 1))
            parts.append(conv(f"{block}.conv2", width, width, 3))
            parts.append(conv(f"{block}.conv3", width, outputs, 1))
            inputs = outputs
    return _prefix("backbone", _join(*parts))


def pixel_decoder(channels: Sequence[int]) -> Shapes:
    """``sem_seg_head.pixel_decoder.*`` on features res2..res5 of so many channels."""
    res2, *deformable = channels
    parts: list[Shapes] = [{"transformer.level_embed": (LEVELS, DIM)}]
    for index, inputs in enumerate(reversed(deformable)):
        parts.append(_conv(f"input_proj.{index}.0", inputs, DIM, 1))
        parts.append(_norm(f"input_proj.{index}.1", DIM))
    samples = HEADS * LEVELS * POINTS
    for index in range(ENCODER_LAYERS):
        layer = f"transformer.encoder.layers.{index}"
        parts += [
            _linear(f"{layer}.self_attn.sampling_offsets", DIM, 2 * samples),
            _linear(f"{layer}.self_attn.attention_weights", DIM, samples),
            _linear(f"{layer}.self_attn.value_proj", DIM, DIM),
            _linear(f"{layer}.self_attn.output_proj", DIM, DIM),
            _norm(f"{layer}.norm1", DIM),
            _linear(f"{layer}.linear1", DIM, PIXEL_FFN),
            _linear(f"{layer}.linear2", PIXEL_FFN, DIM),
            _norm(f"{layer}.norm2", DIM),
        ]
    parts += [
        _conv("adapter_1", res2, DIM, 1, bias=False),
        _norm("adapter_1.norm", DIM),
        _conv("layer_1", DIM, DIM, 3, bias=False),
        _norm("layer_1.norm", DIM),
        _conv("mask_features", DIM, MASK_DIM, 1),
    ]
    return _prefix("sem_seg_head.pixel_decoder", _join(*parts))


def predictor(classes: int, queries: int) -> Shapes:
    """``sem_seg_head.predictor.*``."""
    parts: list[Shapes] = [
        {
            "query_feat.weight": (queries, DIM),
            "query_embed.weight": (queries, DIM),
            "level_embed.weight": (LEVELS, DIM),
        },
        _norm("decoder_norm", DIM),
        _linear("class_embed", DIM, classes + 1),
        _linear("mask_embed.layers.0", DIM, DIM),
        _linear("mask_embed.layers.1", DIM, DIM),
        _linear("mask_embed.layers.2", DIM, MASK_DIM),
    ]
    for index in range(DECODER_LAYERS):
        for layers, attention in (("self", "self_attn"), ("cross", "multihead_attn")):
            layer = f"transformer_{layers}_attention_layers.{index}"
            packed: Shapes = {
                f"{layer}.{attention}.in_proj_weight": (3 * DIM, DIM),
                f"{layer}.{attention}.in_proj_bias": (3 * DIM,),
            }
            parts += [packed, _linear(f"{layer}.{attention}.out_proj", DIM, DIM)]
            parts.append(_norm(f"{layer}.norm", DIM))
        ffn = f"transformer_ffn_layers.{index}"
        parts.append(_linear(f"{ffn}.linear1", DIM, DECODER_FFN))
        parts.append(_linear(f"{ffn}.linear2", DECODER_FFN, DIM))
        parts.append(_norm(f"{ffn}.norm", DIM))
    return _prefix("sem_seg_head.predictor", _join(*parts))


def mask2former(backbone: Shapes, channels: Sequence[int], classes: int, queries: int) -> Shapes:
    """The whole state dict, with the class weights of the criterion."""
    criterion: Shapes = {"criterion.empty_weight": (classes + 1,)}
    return _join(backbone, pixel_decoder(channels), predictor(classes, queries), criterion)


def _prefix(prefix: str, shapes: Shapes) -> Shapes:
    return {f"{prefix}.{name}": shape for name, shape in shapes.items()}
