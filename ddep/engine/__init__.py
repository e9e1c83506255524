"""Training and evaluation."""

from ddep.engine.main import main, run
from ddep.engine.optimizer import build_optimizer
from ddep.engine.setup import setup
from ddep.engine.trainer import Trainer

__all__ = ["Trainer", "build_optimizer", "main", "run", "setup"]
