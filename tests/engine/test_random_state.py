"""Random number generators can be put back to where they were."""

from __future__ import annotations

import io
import random

import numpy as np
import torch

from ddep.engine.random_state import random_state, set_random_state


def draw() -> list[float]:
    return [random.gauss(0, 1), *np.random.randn(3).tolist(), *torch.randn(20).tolist()]


def test_generators_continue_where_they_were_even_from_a_file() -> None:
    draw()
    file = io.BytesIO()
    torch.save(random_state(), file)
    expected = [draw(), draw()]
    file.seek(0)
    set_random_state(torch.load(file, weights_only=True))
    assert [draw(), draw()] == expected
