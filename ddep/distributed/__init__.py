"""Several processes on one or more machines: starting, joining, watching and ending them."""

from ddep.distributed.launch import launch

__all__ = ["launch"]
