"""Index folders of millions of images in flat files that processes share."""

from __future__ import annotations

from ddep.data.image_index.cache import cache_folder, open_index
from ddep.data.image_index.containers import SUFFIXES, without_tar_suffix
from ddep.data.image_index.lister import list_images
from ddep.data.image_index.read_index import ImageIndex
from ddep.data.image_index.videos import FRAME_RATE

__all__ = [
    "FRAME_RATE",
    "SUFFIXES",
    "ImageIndex",
    "cache_folder",
    "list_images",
    "open_index",
    "without_tar_suffix",
]
