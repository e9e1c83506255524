"""Gradio's image component for uploads that are looked at before they are decoded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr
from gradio.data_classes import ImageData


def upload_image(**options: Any) -> gr.Image:
    """An image that a visitor sends; its value in Python is the path of the file, unopened.

    Gradio's own would decode the image first, and would fetch images from other sites for visitors.
    Methods of the object are replaced: making a subclass, Gradio writes a file beside the source.

    Args:
        options: of ``gr.Image``.
    """
    component = gr.Image(**options)
    move = component.async_move_resource_to_block_cache

    def preprocess(payload: ImageData | None) -> str | None:
        # Gradio has checked that the path is one of an upload.
        return payload.path if payload else None

    async def move_file(path: str | Path | None) -> str | None:
        if path is not None and "://" in str(path):
            raise gr.Error("This page takes files, and fetches nothing from other sites.")
        return await move(path)

    component.preprocess = preprocess
    component.async_move_resource_to_block_cache = move_file
    return component
