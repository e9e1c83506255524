"""Tables of our and Hugging Face's names of the weights of Mask2Former and MaskFormer, and the rows
of them that other models share.

Hugging Face's names are those in the files, which transformers 5 translates on loading and saving.
"""

from __future__ import annotations

from ddep.checkpoint.conversion.name_table import NameTable, Row

_ENCODER = "model.pixel_level_module.encoder."
_DECODER = "model.pixel_level_module.decoder."
_TRANSFORMER = "model.transformer_module."


def below(ours: str, theirs: str, rows: list[Row]) -> list[Row]:
    """Rows with our and their prefix before the names."""
    return [
        (
            ours + one,
            theirs + other if isinstance(other, str) else tuple(theirs + name for name in other),
        )
        for one, other in rows
    ]


def _swin(theirs: str, norms: str, first: int) -> list[Row]:
    """Swin's names; theirs of the stages' norms are ``norms`` and a number, from ``first``."""
    block = below(
        "layers.#.blocks.#.",
        "encoder.layers.#.blocks.#.",
        [
            ("norm1.*", "layernorm_before.*"),
            ("norm2.*", "layernorm_after.*"),
            (
                "attn.qkv.*",
                ("attention.self.query.*", "attention.self.key.*", "attention.self.value.*"),
            ),
            ("attn.proj.*", "attention.output.dense.*"),
            ("attn.relative_position_*", "attention.self.relative_position_*"),
            ("mlp.fc1.*", "intermediate.dense.*"),
            ("mlp.fc2.*", "output.dense.*"),
        ],
    )
    body: list[Row] = [
        ("patch_embed.proj.*", "embeddings.patch_embeddings.projection.*"),
        ("patch_embed.norm.*", "embeddings.norm.*"),
        *block,
        ("layers.#.downsample.*.*", "encoder.layers.#.downsample.*.*"),
    ]
    levels: list[Row] = [(f"norm{i}.*", f"{norms}{first + i}.*") for i in range(4)]
    return below("backbone.", theirs, body) + below("backbone.", _ENCODER, levels)


def resnet(prefix: str) -> list[Row]:
    """The names of Hugging Face's ResNet, which start with ``prefix``."""
    rows = _conv("stem.conv1", "embedder.embedder")
    for stage in range(4):
        ours, theirs = f"res{stage + 2}.#", f"encoder.stages.{stage}.layers.#"
        rows += _conv(f"{ours}.shortcut", f"{theirs}.shortcut")
        for layer in range(3):
            rows += _conv(f"{ours}.conv{layer + 1}", f"{theirs}.layer.{layer}")
    return below("backbone.", prefix, rows)


def _conv(ours: str, theirs: str) -> list[Row]:
    return [
        (f"{ours}.weight", f"{theirs}.convolution.weight"),
        (f"{ours}.norm.*", f"{theirs}.normalization.*"),
    ]


def attention(ours: str, theirs: str, out: str = "out_proj") -> list[Row]:
    """An attention whose query, key and value projections are one matrix here and three there."""
    return [
        (f"{ours}.in_proj_*", tuple(f"{theirs}.{part}_proj.*" for part in "qkv")),
        (f"{ours}.out_proj.*", f"{theirs}.{out}.*"),
    ]


def _mask2former_pixel_decoder() -> list[Row]:
    return [
        ("input_proj.#.#.*", "input_projections.#.#.*"),
        ("transformer.level_embed", "level_embed"),
        *below(
            "transformer.encoder.layers.#.",
            "encoder.layers.#.",
            [
                ("self_attn.*.*", "self_attn.*.*"),
                ("norm1.*", "self_attn_layer_norm.*"),
                ("norm2.*", "final_layer_norm.*"),
                ("linear1.*", "fc1.*"),
                ("linear2.*", "fc2.*"),
            ],
        ),
        ("mask_features.*", "mask_projection.*"),
        ("adapter_#.weight", "adapter_#.0.weight"),
        ("adapter_#.norm.*", "adapter_#.1.*"),
        ("layer_#.weight", "layer_#.0.weight"),
        ("layer_#.norm.*", "layer_#.1.*"),
    ]


def _mask2former_predictor() -> list[Row]:
    layers = [
        *attention("transformer_self_attention_layers.#.self_attn", "self_attn"),
        ("transformer_self_attention_layers.#.norm.*", "self_attn_layer_norm.*"),
        ("transformer_cross_attention_layers.#.multihead_attn.in_proj_*", "cross_attn.in_proj_*"),
        (
            "transformer_cross_attention_layers.#.multihead_attn.out_proj.*",
            "cross_attn.out_proj.*",
        ),
        ("transformer_cross_attention_layers.#.norm.*", "cross_attn_layer_norm.*"),
        ("transformer_ffn_layers.#.linear1.*", "fc1.*"),
        ("transformer_ffn_layers.#.linear2.*", "fc2.*"),
        ("transformer_ffn_layers.#.norm.*", "final_layer_norm.*"),
    ]
    return [
        ("input_proj.#.*", "input_projections.#.*"),
        ("query_embed.weight", "queries_embedder.weight"),
        ("query_feat.weight", "queries_features.weight"),
        ("level_embed.weight", "level_embed.weight"),
        ("decoder_norm.*", "decoder.layernorm.*"),
        ("mask_embed.layers.#.*", "decoder.mask_predictor.mask_embedder.#.0.*"),
        *below("", "decoder.layers.#.", layers),
    ]


def _maskformer_pixel_decoder() -> list[Row]:
    """Their FPN counts the levels from coarse to fine, ours from fine to coarse."""
    rows: list[Row] = [
        ("mask_features.*", "mask_projection.*"),
        ("layer_4.weight", "fpn.stem.0.weight"),
        ("layer_4.norm.*", "fpn.stem.1.*"),
    ]
    for number in range(1, 4):
        theirs = f"fpn.layers.{3 - number}"
        rows += [
            (f"adapter_{number}.weight", f"{theirs}.proj.0.weight"),
            (f"adapter_{number}.norm.*", f"{theirs}.proj.1.*"),
            (f"layer_{number}.weight", f"{theirs}.block.0.weight"),
            (f"layer_{number}.norm.*", f"{theirs}.block.1.*"),
        ]
    return rows


def detr_decoder(out: str = "out_proj", hidden: str = "fc") -> list[Row]:
    """The names of the layers of DETR's decoder; ``out`` and ``hidden`` are those of linear
    layers."""
    layers = [
        *attention("self_attn", "self_attn", out),
        *attention("multihead_attn", "encoder_attn", out),
        ("norm1.*", "self_attn_layer_norm.*"),
        ("norm2.*", "encoder_attn_layer_norm.*"),
        ("norm3.*", "final_layer_norm.*"),
        ("linear1.*", f"{hidden}1.*"),
        ("linear2.*", f"{hidden}2.*"),
    ]
    return [
        ("transformer.decoder.norm.*", "decoder.layernorm.*"),
        *below("transformer.decoder.layers.#.", "decoder.layers.#.", layers),
    ]


def _maskformer_predictor() -> list[Row]:
    return [
        ("query_embed.weight", "queries_embedder.weight"),
        ("input_proj.*", "input_projection.*"),
        *detr_decoder(),
    ]


_PIXEL_DECODER = "sem_seg_head.pixel_decoder."
_PREDICTOR = "sem_seg_head.predictor."
_COMMON: list[Row] = [
    (f"{_PREDICTOR}class_embed.*", "class_predictor.*"),
    ("criterion.empty_weight", "criterion.empty_weight"),
]

MASK2FORMER = NameTable(
    [
        *_swin(_ENCODER, "hidden_states_norms.stage", 1),
        *resnet(_ENCODER),
        *below(_PIXEL_DECODER, _DECODER, _mask2former_pixel_decoder()),
        *below(_PREDICTOR, _TRANSFORMER, _mask2former_predictor()),
        *_COMMON,
    ]
)
MASKFORMER = NameTable(
    [
        *_swin(f"{_ENCODER}model.", "hidden_states_norms.", 0),
        *resnet(_ENCODER),
        *below(_PIXEL_DECODER, _DECODER, _maskformer_pixel_decoder()),
        *below(_PREDICTOR, _TRANSFORMER, _maskformer_predictor()),
        (f"{_PREDICTOR}mask_embed.layers.#.*", "mask_embedder.#.0.*"),
        *_COMMON,
    ]
)
