"""The backbones of Hugging Face's Mask2Former and MaskFormer, and the input their models expect."""

from __future__ import annotations

from typing import Any

from ddep.checkpoint.conversion import detectron2_zoo, swin
from ddep.checkpoint.conversion.entries import Entries, Settings, Weights
from ddep.checkpoint.conversion.huggingface_keys import (
    RESNET_SETTINGS,
    STAGES,
    SWIN_SETTINGS,
    ours,
    require,
    section,
)
from ddep.checkpoint.conversion.imagenet import MEAN, STD, input_config
from ddep.errors import UserError

_SWIN = "backbone.patch_embed.proj.weight"
_RESNET = "backbone.stem.conv1.weight"


def check_backbone(weights: Weights, entries: Entries) -> None:
    """Raise :class:`UserError` if ``entries`` have neither a Swin nor a ResNet."""
    if _SWIN not in entries and _RESNET not in entries:
        found = [name for name in weights if ".encoder." in name][:2]
        raise UserError(
            f"the backbone is not Hugging Face's Swin or ResNet: found {', '.join(found)}, ...; "
            "no other can be converted"
        )


def backbone_config(entries: Entries, settings: Settings) -> dict[str, Any]:
    """The config keys of the backbone and its input.

    Args:
        entries: the weights under our names; see :func:`check_backbone`.
        settings: the content of ``config.json``, whose ``backbone_config`` is read, with that of
            ``preprocessor_config.json`` below ``image_processor``.

    Raises:
        UserError: this project does not have this variant of the model.
    """
    inner: Weights = {
        name.removeprefix("backbone."): entry.tensor
        for name, entry in entries.items()
        if name.startswith("backbone.")
    }
    told = section(settings, "backbone_config")
    if _SWIN in entries:
        require(
            told,
            {"hidden_act": "gelu", "layer_norm_eps": 1e-5, "use_absolute_embeddings": False},
            "our Swin has",
        )
        config = {**swin.config_of(inner, {}), **ours(SWIN_SETTINGS, told)}
    else:
        require(
            told,
            {"hidden_act": "relu", "downsample_in_first_stage": False, "out_features": STAGES},
            "our ResNet has",
        )
        config = {**detectron2_zoo.config_of(inner, {}), **ours(RESNET_SETTINGS, told)}
        if "MODEL.RESNETS.DEPTH" not in config:
            raise UserError("the backbone is a ResNet of no depth that we know (18, 34, 50, ...)")
    return {
        **config,
        "MODEL.BACKBONE.FREEZE_AT": 0,  # they also train the first stages
        **_input_config(section(settings, "image_processor")),
    }


def _input_config(processor: Settings) -> dict[str, Any]:
    """The image processor's pixel statistics, size and padding."""
    # Files of the first versions have another key.
    divisor = processor.get("size_divisor", processor.get("size_divisibility", 32))
    padding = {"MODEL.MASK_FORMER.SIZE_DIVISIBILITY": divisor} if type(divisor) is int else {}
    return {**processor_config(processor), **padding}


def processor_config(processor: Settings) -> dict[str, Any]:
    """The config keys of an image processor's pixel statistics and sizes.

    Args:
        processor: the content of ``preprocessor_config.json``.

    Raises:
        UserError: it takes images that this project's models do not take.
    """
    file = "preprocessor_config.json"
    require(processor, {"do_normalize": True, "do_rescale": True}, "we take images with", file)
    mean, std = processor.get("image_mean", MEAN), processor.get("image_std", STD)
    for key, values in (("image_mean", mean), ("image_std", std)):
        if (
            not isinstance(values, (list, tuple))
            or len(values) != 3
            or not all(isinstance(value, (int, float)) for value in values)
        ):
            raise UserError(f"{file} has {key} {values!r}; expected 3 numbers")
    # Files of the first versions have a number for the shorter side.
    size = processor.get("size")
    if not isinstance(size, dict):
        size = {"shortest_edge": size, "longest_edge": processor.get("max_size")}
    sizes = {
        "INPUT.MIN_SIZE_TEST": size.get("shortest_edge"),
        "INPUT.MAX_SIZE_TEST": size.get("longest_edge"),
    }
    # There are no such keys for processors that resize all images to one size.
    return {
        **input_config({}, mean, std),
        **{key: value for key, value in sizes.items() if type(value) is int},
    }
