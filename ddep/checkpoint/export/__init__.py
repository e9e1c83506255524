"""Turning models of this project into ones that other libraries load."""

from ddep.checkpoint.export.folder import atomic_folder, check_replaceable
from ddep.checkpoint.export.huggingface import (
    FILES,
    HuggingFaceModel,
    check_expressible,
    to_hugging_face,
)

__all__ = [
    "FILES",
    "HuggingFaceModel",
    "atomic_folder",
    "check_expressible",
    "check_replaceable",
    "to_hugging_face",
]
