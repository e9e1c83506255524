from __future__ import annotations

import os
import signal

import pytest

from ddep.errors import UserError
from ddep.parallel import Crash, available_cores, check_workers, parallel_map


def square(number: int) -> int:
    """Squares, but the process dies at 3 and 14, and 5 is an error."""
    if number in (3, 14):
        os.kill(os.getpid(), signal.SIGKILL)
    if number == 5:
        raise UserError("five")
    return number**2


def test_results_come_in_order():
    numbers = range(100, 200)
    assert list(parallel_map(square, numbers, 2)) == [n**2 for n in numbers]
    assert list(parallel_map(square, [], 2)) == []


def test_only_the_item_that_ends_a_process_is_lost():
    numbers = [n for n in range(40) if n != 5]
    found = dict(zip(numbers, parallel_map(square, numbers, 2), strict=True))
    assert {n for n, result in found.items() if isinstance(result, Crash)} == {3, 14}
    assert all(found[n] == n**2 for n in numbers if n not in (3, 14))


def test_an_error_is_raised_in_its_turn():
    results = parallel_map(square, [4, 5, 6], 1)
    assert next(results) == 16
    with pytest.raises(UserError, match=r"^five$"):
        next(results)


def test_items_are_taken_when_they_are_needed():
    taken = []

    def numbers():
        for n in range(1000, 2000):
            taken.append(n)
            yield n

    results = parallel_map(square, numbers(), 2)
    next(results)
    results.close()
    assert len(taken) < 50


def test_number_of_workers():
    assert 1 <= available_cores() <= os.cpu_count()
    check_workers(1)
    with pytest.raises(UserError, match="--workers is 0; expected at least 1"):
        check_workers(0)
