"""Convert weights of other libraries for this project, and this project's models for others."""

from ddep.export.convert_checkpoint import convert_file
from ddep.export.to_huggingface import export_to_hugging_face

__all__ = ["convert_file", "export_to_hugging_face"]
