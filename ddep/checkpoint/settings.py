"""Read the config.json that Hugging Face and timm publish beside their weights."""

from __future__ import annotations

import json
import os
from typing import Any

from ddep.errors import UserError

# Formats that come with one; the config.json beside any other file may be something else.
_EXTENSIONS = (".safetensors", ".bin")
_MAX_BYTES = 10_000_000


def read_settings(path: str) -> dict[str, Any]:
    """Read the ``config.json`` of a checkpoint.

    Args:
        path: the checkpoint's folder, or a ``.safetensors`` or ``.bin`` file.

    Returns:
        Its content, empty if there is none; below ``image_processor``, the content of the
        ``preprocessor_config.json`` beside it, if there is one.

    Raises:
        UserError: one of them is not a JSON object.
    """
    if not os.path.isdir(path) and not path.endswith(_EXTENSIONS):
        return {}
    folder = path if os.path.isdir(path) else os.path.dirname(path)
    settings = read_json(os.path.join(folder, "config.json"))
    processor = read_json(os.path.join(folder, "preprocessor_config.json"))
    return {**settings, "image_processor": processor} if processor else settings


def read_json(path: str) -> dict[str, Any]:
    """Read a file with one JSON object; empty if there is no such file.

    Raises:
        UserError: it holds something else.
    """
    if not os.path.isfile(path):
        return {}
    try:
        if os.path.getsize(path) > _MAX_BYTES:
            raise ValueError("too large")
        with open(path, encoding="utf-8") as file:
            content = json.load(file)
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(
            f"{path} cannot be read ({type(error).__name__}); expected a JSON object: copy it "
            "again, or remove it if it does not belong to the checkpoint"
        ) from error
    if not isinstance(content, dict):
        raise UserError(f"{path} holds a {type(content).__name__}; expected a JSON object")
    return content
