from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from ddep.data.seeding import seeded


def draw() -> tuple[float, ...]:
    # An odd number of normal numbers: the generators keep the second one of a pair.
    return (
        *(random.gauss(0, 1), random.random()),
        *(np.random.randn(), np.random.rand()),
        *(torch.randn(()).item(), torch.rand(()).item()),
    )


def test_the_generators_are_restored():
    draw()
    states = (random.getstate(), np.random.get_state(), torch.get_rng_state())
    expected = draw()
    random.setstate(states[0])
    np.random.set_state(states[1])
    torch.set_rng_state(states[2])
    with seeded(1, 2):
        draw()
    with pytest.raises(KeyError), seeded(3, 4):
        draw()
        raise KeyError
    assert draw() == expected


def test_numbers_depend_only_on_seed_and_position():
    def draw_seeded(seed: int, position: int) -> tuple[float, ...]:
        with seeded(seed, position):
            return draw()

    keys = [(0, 0), (0, 1), (1, 0), (1, 1), (2**31, 2**40), (2**40, 2**31)]
    drawn = [draw_seeded(*key) for key in keys]
    draw()
    assert drawn == [draw_seeded(*key) for key in keys]
    for of_generator in zip(*drawn, strict=True):
        assert len(set(of_generator)) == len(keys)


def test_generators_are_not_copies_of_each_other():
    with seeded(0, 0):
        numbers = [
            np.random.randint(2**32),
            torch.randint(2**32, ()).item(),
            random.getrandbits(32),
        ]
    assert len(set(numbers)) == 3
