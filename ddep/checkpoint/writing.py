"""Moved to ddep.files."""

from ddep.files import atomic_write, sync

__all__ = ["atomic_write", "sync"]
