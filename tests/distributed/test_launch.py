"""Real processes, over gloo, are started, joined and ended together."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ddep.parallel import available_cores

pytestmark = pytest.mark.slow

PROGRAMS = Path(__file__).with_name("programs.py")
# Seconds, start included; processes that wait for others do so for 1000 seconds or more.
LIMIT = 120


@contextmanager
def started(*words: object, **variables: str) -> Iterator[subprocess.Popen]:
    """A program with its output in pipes; killed at the end if it has not ended."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM_", "OMP_"))}
    environment["PYTHONWARNINGS"] = "ignore"
    pipe = subprocess.PIPE
    command = [str(word) for word in words]
    with subprocess.Popen(
        command, env=environment | variables, stdout=pipe, stderr=pipe, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def programs(function: str, *options: object) -> list[object]:
    return [sys.executable, PROGRAMS, function, *options]


def run(*words: object, **variables: str) -> tuple[int, str, str]:
    """Status, stdout and stderr of a program."""
    with started(*words, **variables) as process:
        out, err = process.communicate(timeout=LIMIT)
    return process.returncode, out, err


def introductions(out: str) -> list[tuple[int, ...]]:
    """Of each process: rank, number, local rank and number, sum, threads, pid."""
    pattern = r"rank (\d+) of (\d+), local (\d+) of (\d+), sum (\d+), threads (\d+), pid (\d+)"
    return sorted(tuple(map(int, found)) for found in re.findall(pattern, out))


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_a_signal_goes_to_all_processes_which_save_and_end() -> None:
    with started(*programs("until_stopped", "--num-gpus", 2)) as process:
        out = process.stdout.readline() + process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        rest, err = process.communicate(timeout=LIMIT)
    threads = max(1, available_cores() // 2)
    found = introductions(out)
    assert [words[:6] for words in found] == [(0, 2, 0, 2, 3, threads), (1, 2, 1, 2, 3, threads)]
    assert rest == "saved\n"
    assert err == "stopped by SIGTERM in iteration 3\n"
    assert process.returncode == 128 + signal.SIGTERM
    assert not any(is_alive(words[-1]) for words in found)


def test_a_second_signal_kills_processes_that_ignore_the_first() -> None:
    with started(*programs("ignore_signals", "--num-gpus", 2)) as process:
        found = introductions(process.stdout.readline() + process.stdout.readline())
        process.send_signal(signal.SIGTERM)
        time.sleep(1.5)
        assert all(is_alive(words[-1]) for words in found)
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=LIMIT)
    assert (process.returncode, err) == (128 + signal.SIGTERM, "")
    assert not any(is_alive(words[-1]) for words in found)


def test_a_mistake_that_all_processes_find_is_one_line() -> None:
    status, out, err = run(*programs("mistake", "--num-gpus", 2))
    assert (status, out, err) == (1, "", "error: mend this\n")


def test_a_killed_process_ends_the_one_that_waits_for_it() -> None:
    status, out, err = run(*programs("be_killed", "--num-gpus", 2))
    pid = introductions(out)[1][-1]
    assert status == 128 + signal.SIGKILL
    assert set(err.splitlines()) == {
        f"rank 1 (process {pid} on {socket.gethostname()}) disappeared without reporting an error: "
        "it was killed, perhaps for lack of memory, or its machine failed",
        f"error: rank 1 (process {pid}) was ended by SIGKILL; is the machine out of memory?",
    }


def test_a_failure_on_one_machine_ends_the_others_and_is_reported_there() -> None:
    options = ["--num-machines", 2, "--dist-url", f"tcp://127.0.0.1:{free_port()}"]
    with (
        started(*programs("fail", *options, "--machine-rank", 0)) as first,
        started(*programs("fail", *options, "--machine-rank", 1)) as second,
    ):
        ends = [process.communicate(timeout=LIMIT) for process in (first, second)]
    for process, (_, err) in zip((first, second), ends, strict=True):
        assert process.returncode == 1
        assert re.match(r"rank 1 \(process \d+ on .*\) has failed:\nTraceback ", err)
        assert re.search(r"\nerror: KeyError: 'the cause' in rank 1 \(process \d+ on .*\)\n$", err)
    for machine, (out, _) in enumerate(ends):
        assert introductions(out)[0][:5] == (machine, 2, 0, 1, 3)


def test_processes_whose_launcher_is_killed_save_and_end() -> None:
    with started(*programs("until_stopped", "--num-gpus", 2)) as process:
        found = introductions(process.stdout.readline() + process.stdout.readline())
        assert all(is_alive(words[-1]) for words in found)
        process.kill()
        assert process.stdout.readline() == "saved\n"
        deadline = time.monotonic() + LIMIT
        while any(is_alive(words[-1]) for words in found) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert [is_alive(words[-1]) for words in found] == [False, False]


def test_torchrun_starts_the_processes() -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    status, out, err = run(*torchrun, "--nproc-per-node", 2, PROGRAMS, "introduce")
    assert status == 0, err
    found = introductions(out)
    assert [words[:5] for words in found] == [(0, 2, 0, 2, 3), (1, 2, 1, 2, 3)]


def test_srun_starts_the_processes_on_two_nodes() -> None:
    shared = {
        "SLURM_STEP_NUM_TASKS": "2",
        "SLURM_STEP_NODELIST": "127.0.0.[1-2]",
        "SLURM_JOB_ID": "1234",
        "SLURM_LOCALID": "0",
        "MASTER_PORT": str(free_port()),
    }
    with (
        started(*programs("introduce"), SLURM_PROCID="0", SLURM_NODEID="0", **shared) as first,
        started(*programs("introduce"), SLURM_PROCID="1", SLURM_NODEID="1", **shared) as second,
    ):
        ends = [process.communicate(timeout=LIMIT) for process in (first, second)]
    for node, (out, err) in enumerate(ends):
        assert not err
        assert introductions(out)[0][:5] == (node, 2, 0, 1, 3)
    assert first.returncode == second.returncode == 0


def test_a_port_that_is_taken_is_named() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        options = ["--num-machines", 2, "--dist-url", f"tcp://127.0.0.1:{port}"]
        status, _, err = run(*programs("introduce", *options, "--machine-rank", 0))
    assert (status, err.count("\n")) == (1, 1)
    assert f"error: port {port} of 127.0.0.1 cannot be opened" in err


def test_an_address_without_a_port_is_named() -> None:
    options = ["--num-machines", 2, "--dist-url", "tcp://x", "--machine-rank", 1]
    status, _, err = run(*programs("introduce", *options))
    assert (status, err.count("\n")) == (1, 1)
    assert "error: --dist-url is tcp://x; expected tcp://HOST:PORT" in err
