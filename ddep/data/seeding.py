"""Seed the random numbers of one training sample, whatever was drawn before."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator

import numpy as np
import torch


@contextlib.contextmanager
def seeded(seed: int, position: int) -> Iterator[None]:
    """Seed the global generators of Python, NumPy and torch (CPU); restore them afterwards.

    Args:
        seed: of the stream of samples, not negative.
        position: of the sample in the stream, not negative.
    """
    words = np.random.SeedSequence((seed, position)).generate_state(4)
    python_state = random.getstate()
    numpy_state = np.random.get_state(legacy=False)
    torch_state = torch.default_generator.get_state()
    try:
        random.seed(words.tobytes())
        np.random.seed(words)
        torch.default_generator.manual_seed(int(words[0]))
        yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)
        torch.default_generator.set_state(torch_state)
