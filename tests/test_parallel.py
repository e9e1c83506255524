from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ddep.errors import UserError
from ddep.parallel import Crash, available_cores, check_workers, parallel_map


def square(number: int) -> int:
    """Squares a number, but 3 and 14 kill the process, and 5 is an error."""
    if number in (3, 14):
        os.kill(os.getpid(), signal.SIGKILL)
    if number == 5:
        raise UserError("five")
    return number**2


def test_results_come_in_order():
    numbers = range(100, 200)
    assert list(parallel_map(square, numbers, 2)) == [n**2 for n in numbers]
    assert list(parallel_map(square, [], 2)) == []


def test_only_items_that_kill_their_process_are_lost():
    numbers = [n for n in range(40) if n != 5]
    found = dict(zip(numbers, parallel_map(square, numbers, 2), strict=True))
    assert {n for n, result in found.items() if isinstance(result, Crash)} == {3, 14}
    assert all(found[n] == n**2 for n in numbers if n not in (3, 14))


def test_errors_are_raised_in_order():
    results = parallel_map(square, [4, 5, 6], 1)
    assert next(results) == 16
    with pytest.raises(UserError, match=r"^five$"):
        next(results)


def test_items_are_taken_lazily():
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


def blocked(_: int) -> set[int]:
    return set(signal.pthread_sigmask(signal.SIG_BLOCK, []))


def test_workers_never_receive_ctrl_c():
    """Not even before they ignore it: they start with it blocked."""
    (in_worker,) = parallel_map(blocked, [0], 1)
    assert signal.SIGINT in in_worker
    assert signal.SIGINT not in blocked(0)


@pytest.mark.slow
def test_ctrl_c_is_one_line(tmp_path: Path):
    script = tmp_path / "script.py"
    script.write_text(
        "import time\n"
        "from ddep.endings import errors_as_lines\n"
        "from ddep.parallel import parallel_map\n"
        "if __name__ == '__main__':\n"
        "    with errors_as_lines():\n"
        "        for _ in parallel_map(time.sleep, [0.1] * 1000, 2):\n"
        "            print('one', flush=True)\n"
    )
    root = Path(__file__).parents[1]
    with subprocess.Popen(
        [sys.executable, str(script)],
        env={**os.environ, "PYTHONPATH": str(root)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # so that the signal reaches only this process and its workers
    ) as process:
        assert process.stdout.readline() == "one\n"
        os.killpg(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.splitlines()[-1] == "interrupted" and "Traceback" not in errors
