from __future__ import annotations

from tests.engine.tiny_runs import one_thread

__all__ = ["one_thread"]
