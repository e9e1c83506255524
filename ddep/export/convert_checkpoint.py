"""Convert a checkpoint file for MODEL.WEIGHTS, and report what fits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.modeling import build_backbone, build_model

from ddep.checkpoint import read_checkpoint, read_settings
from ddep.checkpoint.checksum import remove_checksum
from ddep.checkpoint.conversion import OWN_NAMES, Conversion, convert
from ddep.checkpoint.frozen_encoder import KEY
from ddep.checkpoint.groups import TRANSFERABLE, group_of
from ddep.checkpoint.load_report import group_table
from ddep.config import add_ddep_config, get_key
from ddep.data.datasets.custom import register_custom_sets
from ddep.errors import UserError, one_line
from ddep.files import atomic_write
from ddep.output_files import check_replaces_nothing, check_writable
from ddep.tasks import load_config

# The number of names of a list that are printed without --verbose.
_SHOWN = 10


def convert_file(
    source: str,
    destination: str,
    format_name: str = "auto",
    *,
    config_file: str | None = None,
    overwrite: bool = False,
    verbose: bool = False,
    keep_classes: bool = False,
) -> Conversion:
    """Convert ``source`` to ``destination``, and print what became of every weight.

    Missing weights and new sizes are found by comparing with the model that ``config_file``
    describes or, without it, with the model that the weights themselves describe.

    Args:
        source: a file or folder that :func:`ddep.checkpoint.read_checkpoint` reads.
        destination: the file to write; its folder is created.
        format_name: a key of :data:`ddep.checkpoint.conversion.FORMATS`, or "auto".
        config_file: a config of this project.
        overwrite: whether to replace an existing ``destination``.
        verbose: whether to print all names, also of the weights that were loaded.
        keep_classes: see :func:`ddep.checkpoint.conversion.convert`.

    Returns:
        What was written, and where it came from.

    Raises:
        UserError: nothing can be converted, or ``destination`` must not or cannot be written; it
            is then unchanged.
    """
    _check_destination(source, destination, overwrite)
    cfg = load_config(config_file) if config_file else None
    checkpoint = read_checkpoint(source)
    weights = checkpoint["model"]
    if KEY in checkpoint:
        raise UserError(
            f"SRC {source} does not hold its frozen encoder, which is in "
            f"{checkpoint[KEY]['weights']}; name SRC itself in MODEL.WEIGHTS, which brings both"
        )
    conversion = convert(weights, format_name, read_settings(source), keep_classes=keep_classes)
    if cfg is not None:
        conversion.fit(_expected(cfg, conversion))
    elif conversion.config:
        conversion.fit(_described(conversion))
    elif conversion.format_name not in OWN_NAMES:
        raise UserError(
            f"{source} does not tell which {conversion.format_name} model it is of; name it with "
            "--config-file, in a config of this project (MODEL.BACKBONE.NAME TimmBackbone and "
            "MODEL.DDEP.TIMM.NAME, say)"
        )
    check_writable("DST", destination)
    _report(conversion, verbose)
    if config_file and cfg is not None:
        _print(f"config keys that differ in {config_file}", _differences(cfg, conversion.config))
    elif conversion.config:
        keys = [f"{key} {value}" for key, value in conversion.config.items()]
        _print("config keys that fit", keys)
    with atomic_write(destination) as file:
        torch.save({"model": conversion.weights}, file)
        remove_checksum(destination)  # of a file that is replaced
    print(f"wrote {destination}: {len(conversion.weights)} weights")
    return conversion


def _check_destination(source: str, destination: str, overwrite: bool) -> None:
    check_replaces_nothing("DST", destination, {"SRC": source}, overwrite=overwrite)
    if destination.endswith((".pkl", ".safetensors")):
        raise UserError(f"DST {destination}: what is written is a .pth; name it so")
    if not destination.endswith(".pth"):
        print(f"warning: DST {destination} does not end with .pth, which MODEL.WEIGHTS expects")


def _described(conversion: Conversion) -> dict[str, torch.Tensor]:
    """The state dict of the model that the weights themselves describe."""
    cfg = get_cfg()
    add_ddep_config(cfg)
    cfg.merge_from_list([item for pair in conversion.config.items() for item in pair])
    try:
        return _expected(cfg, conversion)
    except UserError:
        raise
    except Exception as error:  # a damaged file may describe anything
        keys = ", ".join(f"{key} {value}" for key, value in conversion.config.items())
        raise UserError(
            f"the weights describe a model that cannot be built ({keys}): {one_line(error)}; the "
            "file is damaged, or only resembles its format"
        ) from error


def _expected(cfg: CfgNode, conversion: Conversion) -> dict[str, torch.Tensor]:
    """The state dict of the model, or of its backbone if the weights are only for the backbone.

    It is on the meta device: only names and shapes count, and a damaged file may ask for any size.
    """
    register_custom_sets(cfg)
    cfg.MODEL.DEVICE = "meta"
    with torch.device("meta"):
        if any(group_of(name) != "backbone" for name in conversion.weights):
            return build_model(cfg).state_dict()
        state = build_backbone(cfg).state_dict()
    return {f"backbone.{name}": tensor for name, tensor in state.items()}


def _report(conversion: Conversion, verbose: bool) -> None:
    resized = conversion.resized
    loaded = [name for name in conversion.weights if name not in resized]
    outcomes = {
        "loaded": loaded,
        "resized": list(resized),
        "missing": conversion.missing,
        "unused": conversion.unused,
    }
    print(f"format: {conversion.format_name}")
    print(group_table(outcomes))
    if verbose:
        sources = conversion.sources
        _print("loaded", [f"{' + '.join(sources.get(n, ['computed']))} -> {n}" for n in loaded])
    shown = None if verbose else _SHOWN
    _print("resized", [f"{name}: {old} -> {new}" for name, (old, new) in resized.items()], shown)
    _print(
        "missing, stays as initialised", conversion.missing or _missing_groups(conversion), shown
    )
    _print("unused", conversion.unused, shown)


def _differences(cfg: CfgNode, described: Mapping[str, Any]) -> list[str]:
    """The keys whose values differ from what the weights describe; only sizes are adapted."""
    found = {key: get_key(cfg, key) for key in described}
    return [
        f"{key} is {found[key]}, the weights are for {value}"
        for key, value in described.items()
        if found[key] != value
    ]


def _missing_groups(conversion: Conversion) -> list[str]:
    """The groups without any weight, which is all that is known to be missing without a config."""
    if conversion.config:
        return []
    groups = {group_of(name) for name in conversion.weights}
    return [f"every weight of {group}" for group in TRANSFERABLE if group not in groups]


def _print(title: str, lines: Sequence[str], shown: int | None = None) -> None:
    rest = len(lines) - shown if shown is not None else 0
    if rest > 0:
        lines = [*lines[:shown], f"... and {rest} more; --verbose names all"]
    print(f"{title} ({len(lines) - (rest > 0) + max(rest, 0)}):", *lines, sep="\n  ")
