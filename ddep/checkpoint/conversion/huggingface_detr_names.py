"""Tables of our and Hugging Face's names of the weights of DETR.

transformers 5 has other names in memory than in files, which it translates on loading and saving.
"""

from __future__ import annotations

from ddep.checkpoint.conversion.huggingface_names import attention, below, detr_decoder, resnet
from ddep.checkpoint.conversion.name_table import NameTable, Row


def _timm_resnet(prefix: str) -> list[Row]:
    """timm's names are torchvision's."""
    rows: list[Row] = [("stem.conv1.weight", "conv1.weight"), ("stem.conv1.norm.*", "bn1.*")]
    for stage in range(1, 5):
        ours, theirs = f"res{stage + 1}.#", f"layer{stage}.#"
        rows += [
            (f"{ours}.shortcut.weight", f"{theirs}.downsample.0.weight"),
            (f"{ours}.shortcut.norm.*", f"{theirs}.downsample.1.*"),
        ]
        for layer in range(1, 4):
            rows += [
                (f"{ours}.conv{layer}.weight", f"{theirs}.conv{layer}.weight"),
                (f"{ours}.conv{layer}.norm.*", f"{theirs}.bn{layer}.*"),
            ]
    return below("backbone.", prefix, rows)


def detr_names(*, segmentation: bool, timm: bool, in_memory: bool) -> NameTable:
    """The table of one variant of the model.

    Args:
        segmentation: ``DetrForSegmentation`` instead of ``DetrForObjectDetection``.
        timm: the ResNet is timm's, not Hugging Face's own.
        in_memory: names of ``state_dict()``, not of a file.
    """
    prefix = "detr." if segmentation else ""
    backbone = f"{prefix}model.{'backbone.model' if in_memory else 'backbone.conv_encoder.model'}."
    out, hidden = ("o_proj", "mlp.fc") if in_memory else ("out_proj", "fc")
    encoder = [
        *attention("self_attn", "self_attn", out),
        ("norm1.*", "self_attn_layer_norm.*"),
        ("norm2.*", "final_layer_norm.*"),
        ("linear1.*", f"{hidden}1.*"),
        ("linear2.*", f"{hidden}2.*"),
    ]
    model: list[Row] = [
        *below("transformer.encoder.layers.#.", "encoder.layers.#.", encoder),
        *detr_decoder(out, hidden),
        ("query_embed.weight", "query_position_embeddings.weight"),
        ("input_proj.*", "input_projection.*"),
        ("position_embedding.row_embed.weight", "position_embedding.row_embeddings.weight"),
        ("position_embedding.col_embed.weight", "position_embedding.column_embeddings.weight"),
    ]
    heads: list[Row] = [
        ("class_embed.*", "class_labels_classifier.*"),
        ("bbox_embed.layers.#.*", "bbox_predictor.layers.#.*"),
    ]
    return NameTable(
        [
            *(_timm_resnet(backbone) if timm else resnet(backbone)),
            *below("", f"{prefix}model.", model),
            *below("", prefix, heads),
            *(_MASKS_IN_MEMORY if in_memory else _MASKS_IN_FILES),
        ]
    )


# In files, the head that predicts masks has its authors' names.
_MASKS_IN_FILES: list[Row] = [
    *((f"bbox_attention.{part}_linear.*",) * 2 for part in "qk"),
    *((f"mask_head.{part}#.*",) * 2 for part in ("lay", "gn", "adapter")),
    ("mask_head.out_lay.*", "mask_head.out_lay.*"),
]
_MASKS_IN_MEMORY: list[Row] = [
    *((f"bbox_attention.{part}_linear.*", f"bbox_attention.{part}_proj.*") for part in "qk"),
    ("mask_head.out_lay.*", "mask_head.output_conv.*"),
]
for _number in (1, 2):
    _MASKS_IN_MEMORY += [
        (f"mask_head.lay{_number}.*", f"mask_head.conv{_number}.conv.*"),
        (f"mask_head.gn{_number}.*", f"mask_head.conv{_number}.norm.*"),
    ]
for _number in range(3):
    _MASKS_IN_MEMORY += [
        (f"mask_head.adapter{_number + 1}.*", f"mask_head.fpn_stages.{_number}.fpn_adapter.*"),
        (f"mask_head.lay{_number + 3}.*", f"mask_head.fpn_stages.{_number}.refine.conv.*"),
        (f"mask_head.gn{_number + 3}.*", f"mask_head.fpn_stages.{_number}.refine.norm.*"),
    ]
