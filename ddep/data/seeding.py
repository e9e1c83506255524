"""Random numbers of one training sample, whatever was drawn before and elsewhere."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator

import numpy as np
import torch

# Stands in for NumPy's global generator meanwhile: copying that one's state takes longer than all
# the rest.
_NUMPY_GENERATOR = np.random.MT19937()


@contextlib.contextmanager
def seeded(seed: int, position: int) -> Iterator[None]:
    """Seed the global generators of Python, NumPy and torch (CPU); put them back afterwards.

    Args:
        seed: of the stream of samples, not negative.
        position: of the sample in the stream, not negative.
    """
    words = np.random.SeedSequence((seed, position)).generate_state(4)
    python_state = random.getstate()
    numpy_generator = np.random.get_bit_generator()
    torch_state = torch.default_generator.get_state()
    try:
        np.random.set_bit_generator(_NUMPY_GENERATOR)
        np.random.seed(words)
        random.seed(words.tobytes())
        torch.default_generator.manual_seed(int(words[0]))
        yield
    finally:
        random.setstate(python_state)
        np.random.set_bit_generator(numpy_generator)
        torch.default_generator.set_state(torch_state)
