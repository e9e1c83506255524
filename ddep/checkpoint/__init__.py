"""Reading, writing and converting checkpoints."""

from ddep.checkpoint.checkpointer import Checkpointer
from ddep.checkpoint.groups import check_transfer
from ddep.checkpoint.read_checkpoint import local_path, read_checkpoint
from ddep.checkpoint.settings import read_settings

__all__ = ["Checkpointer", "check_transfer", "local_path", "read_checkpoint", "read_settings"]
