"""Images and labels: reading, augmentation, mappers, loaders and the data sets themselves."""

from __future__ import annotations

from ddep.data.datasets import register_from_config
from ddep.data.image_reader import UnreadableImageError, read_image
from ddep.data.loaders import (
    build_paired_loader,
    build_test_loader,
    build_train_loader,
    target_batch_size,
)
from ddep.data.records import check_target_sets, check_training_sets

__all__ = [
    "UnreadableImageError",
    "build_paired_loader",
    "build_test_loader",
    "build_train_loader",
    "check_target_sets",
    "check_training_sets",
    "read_image",
    "register_from_config",
    "target_batch_size",
]
