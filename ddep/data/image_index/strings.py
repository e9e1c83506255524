"""A sequence of strings in one block of bytes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np


class Strings(Sequence[str]):
    """Strings that take only their bytes and an offset each, in arrays that may be mapped files."""

    def __init__(self, block: np.ndarray, starts: np.ndarray) -> None:
        """
        Args:
            block: (B,) uint8, the concatenated strings in UTF-8.
            starts: (N + 1,) int64; string i is ``block[starts[i] : starts[i + 1]]``.
        """
        self.block = block
        self.starts = starts

    @classmethod
    def pack(cls, strings: Iterable[str]) -> Strings:
        """Copy ``strings`` into a new block."""
        # File names that are not text have lone surrogates; this keeps them, and their order.
        encoded = [string.encode("utf-8", "surrogatepass") for string in strings]
        starts = np.zeros(len(encoded) + 1, dtype=np.int64)
        np.cumsum(np.fromiter(map(len, encoded), np.int64, len(encoded)), out=starts[1:])
        return cls(np.frombuffer(b"".join(encoded), dtype=np.uint8), starts)

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, index: int) -> str:
        if not 0 <= index < len(self):
            raise IndexError(index)
        part = self.block[self.starts[index] : self.starts[index + 1]]
        return part.tobytes().decode("utf-8", "surrogatepass")
