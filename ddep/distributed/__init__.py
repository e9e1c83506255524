"""Several processes, on one machine or more: started, joined, watched and ended together."""

from ddep.distributed.launch import launch

__all__ = ["launch"]
