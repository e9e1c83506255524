"""Ends all processes of a run, on all machines, when one fails, and reports its error first.

A process that fails tells rank 0, which tells all others. If a process is killed or a machine is
lost, the operating system closes their connections. No messages are needed while all goes well.
"""

from __future__ import annotations

import logging
import os
import secrets
import socket
import sys
import threading
import time
import traceback
from dataclasses import dataclass
from multiprocessing.connection import Client, Connection, Listener, wait
from typing import NoReturn

from detectron2.utils import comm

from ddep.distributed.placement import Placement
from ddep.endings import line_of, status_of
from ddep.errors import UserError

logger = logging.getLogger(__name__)

# Seconds that a process with a broken collective operation waits for another to report the cause.
_PATIENCE = 3.0
# Seconds in which a launcher notices which of its processes ended first.
_NOTICED = 1.0
# Seconds in which rank 0 must tell the others.
_ANSWER = 10.0
# A machine that does not answer for 10 + 4 * 5 seconds is lost.
_KEEP_ALIVE = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 4}


@dataclass(frozen=True)
class Failure:
    """Why a run ends.

    Attributes:
        line: for the console; empty if the launcher prints one.
        details: for the log; empty if ``line`` says everything.
        status: the exit status.
    """

    line: str
    details: str
    status: int


class FailureWatch:
    """Ends this process when another of the run fails, and the others when this one does.

    It waits in a thread of its own, because the main one may wait for the process that failed.

    Attributes:
        is_ending: whether another process was killed, and this one is about to end.
    """

    is_ending = False

    def __init__(self, placement: Placement) -> None:
        """Connect to the other processes, which do the same.

        Args:
            placement: of this process, which is in the process group.
        """
        self._placement = placement
        self._finishing = False
        self._ending = threading.Lock()
        self._names = comm.all_gather(f"process {os.getpid()} on {socket.gethostname()}")
        self._machines = comm.all_gather(placement.machine)
        self._peers = self._connect()
        for peer in self._peers:
            _keep_alive(peer)
        target = self._watch_all if placement.rank == 0 else self._watch_rank_0
        self._thread = threading.Thread(target=target, daemon=True)
        self._thread.start()

    def _connect(self) -> dict[Connection, int]:
        """Rank 0's connections to all others, or the one to rank 0."""
        host, others = self._placement.host, self._placement.world_size - 1
        if self._placement.rank > 0:
            port, key = comm.all_gather(None)[0]
            peer = Client((host, port), authkey=key)
            peer.send(self._placement.rank)
            return {peer: 0}
        key = secrets.token_bytes()
        bound = "127.0.0.1" if host in ("127.0.0.1", "localhost") else ""
        with Listener((bound, 0), backlog=others, authkey=key) as listener:
            comm.all_gather((listener.address[1], key))
            peers = [listener.accept() for _ in range(others)]
        return {peer: peer.recv() for peer in peers}

    def _watch_all(self) -> None:
        """Wait for a failure of any process: rank 0's thread."""
        running = dict(self._peers)
        while running:
            for peer in wait(list(running)):
                try:
                    failure = peer.recv()
                except (EOFError, OSError):
                    failure = self._lost(running[peer])
                if failure is not None:
                    self._end_all(failure)
                del running[peer]

    def _watch_rank_0(self) -> None:
        """Wait for what rank 0 reports: the thread of any other rank."""
        (first,) = self._peers
        try:
            failure = first.recv()
        except (EOFError, OSError):
            failure = self._lost(0)
        if not self._finishing:
            _wait_for_launcher(failure)
            self._end(failure)

    def _lost(self, rank: int) -> Failure:
        self.is_ending = True
        message = (
            f"rank {rank} ({self._names[rank]}) disappeared without reporting an error: it was "
            "killed, perhaps for lack of memory, or its machine failed"
        )
        is_near = self._machines[rank] == self._placement.machine
        # The launcher on this machine knows more, and prints it.
        line = "" if is_near else f"error: {message}"
        return Failure(line, message, 1)

    def report(self, error: BaseException) -> NoReturn:
        """End all processes because of ``error`` in this one."""
        yield_to_others(error)
        failure = self._explain(error)
        if self._placement.rank == 0:
            self._end_all(failure)
        if failure.details and logger.hasHandlers():
            logger.error(failure.details)
        (first,) = self._peers
        try:
            first.send(failure)
            self._thread.join(_ANSWER)
        except OSError:
            time.sleep(1)
        print(failure.line, file=sys.stderr, flush=True)
        os._exit(failure.status)

    def _explain(self, error: BaseException) -> Failure:
        if isinstance(error, SystemExit):
            is_text = isinstance(error.code, str)
            return Failure(error.code if is_text else "", "", 1 if is_text else error.code or 0)
        line, details = line_of(error), ""
        if not isinstance(error, (UserError, FloatingPointError, KeyboardInterrupt)):
            name = f"rank {self._placement.rank} ({self._names[self._placement.rank]})"
            line = f"{line} in {name}"
            text = "".join(traceback.format_exception(error))
            details = f"{name} has failed:\n{text.rstrip()}"
        return Failure(line, details, status_of(error))

    def _end_all(self, failure: Failure) -> NoReturn:
        """Rank 0: report the failure, end the others, then this process."""
        with self._ending:
            self._print(failure)
            _wait_for_launcher(failure)
            running = []
            for peer in self._peers:
                try:
                    peer.send(failure)
                    running.append(peer)
                except OSError:
                    logger.debug("rank %d has ended before it was told to", self._peers[peer])
            # Rank 0 ends last: the others would take its end for the failure.
            deadline = time.monotonic() + _ANSWER
            while running and time.monotonic() < deadline:
                for peer in wait(running, timeout=1):
                    try:
                        peer.recv()
                    except (EOFError, OSError):
                        running.remove(peer)
            _exit(failure.status)

    def _end(self, failure: Failure) -> NoReturn:
        """Any other rank: end. On each other machine, its first process reports the failure."""
        if self._placement.local_rank == 0 and self._placement.machine != self._machines[0]:
            self._print(failure)
        _exit(failure.status)

    def _print(self, failure: Failure) -> None:
        if failure.details and logger.hasHandlers():
            logger.error(failure.details)
        elif failure.details:
            print(failure.details, file=sys.stderr, flush=True)
        if failure.line:
            print(failure.line, file=sys.stderr, flush=True)

    def finish(self) -> None:
        """Stop watching, because all processes have done their work."""
        self._finishing = True
        if self._placement.rank == 0:
            self._thread.join()
        else:
            (first,) = self._peers
            first.send(None)


def _wait_for_launcher(failure: Failure) -> None:
    """Give the launcher time to see which process was killed.

    PyTorch's elastic agent looks a few times a second, and names one of those that have ended.
    """
    if not failure.line and failure.details:
        time.sleep(_NOTICED)


def yield_to_others(error: BaseException | None) -> None:
    """If another process may have caused ``error``, give that one time to report.

    When a process ends, collective operations raise a RuntimeError in all others.
    """
    if isinstance(error, RuntimeError):
        time.sleep(_PATIENCE)


def _exit(status: int) -> NoReturn:
    # Not sys.exit: the main thread may be stuck.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _keep_alive(peer: Connection) -> None:
    with socket.socket(fileno=os.dup(peer.fileno())) as connected:
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _KEEP_ALIVE.items():
            if hasattr(socket, name):
                connected.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
