"""Training and evaluation."""

from ddep.endings import errors_as_lines
from ddep.engine.conversion import convert_file
from ddep.engine.export import export_to_hugging_face
from ddep.engine.main import main, run
from ddep.engine.optimizer import build_optimizer
from ddep.engine.setup import adapt_to_device, setup
from ddep.engine.trainer import Trainer

__all__ = [
    "Trainer",
    "adapt_to_device",
    "build_optimizer",
    "convert_file",
    "errors_as_lines",
    "export_to_hugging_face",
    "main",
    "run",
    "setup",
]
