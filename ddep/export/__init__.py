"""Convert weights of other libraries for this project, and this project's models for others."""

from ddep.export.checks import SUFFIXES, check_export
from ddep.export.convert_checkpoint import convert_file
from ddep.export.exported_model import ExportedModel
from ddep.export.to_huggingface import export_to_hugging_face
from ddep.export.to_onnx import export_to_onnx
from ddep.export.to_torch import export_to_torch

__all__ = [
    "SUFFIXES",
    "ExportedModel",
    "check_export",
    "convert_file",
    "export_to_hugging_face",
    "export_to_onnx",
    "export_to_torch",
]
