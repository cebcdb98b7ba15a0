"""Two processes that stay: real ranks over gloo, started once, because importing torch twice takes seconds."""

from __future__ import annotations

import atexit
import contextlib
import os
import pickle
import select
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from alignzoo.testing.modules import environment, search_path, sources
from alignzoo.testing.outcomes import Violation

RANKS = 2
PATIENCE = 120.0
"""Seconds until a job counts as stuck; the collectives of the ranks give up a little earlier."""

_HEADER = struct.Struct("!Q")


def on_two_ranks(job: Callable[..., Any], *arguments: Any, modules: list[str]) -> list[Any]:
    """What ``job(*arguments)`` returns on each of two ranks.

    Args:
        modules: the modules that the method comes from; they are loaded there before the arguments are read.

    Raises:
        Violation: the arguments cannot be sent, or the job failed or got stuck on a rank.
    """
    try:
        payload = pickle.dumps((job, arguments))
    except Exception as error:
        raise Violation(
            expected="a card that can be sent to another process",
            found=f"{type(error).__name__}: {error}",
            remedy="define the options class at the top of a module, not inside a function",
        ) from error
    return _ranks().run(pickle.dumps((search_path(), sources(modules), payload)))


class _Ranks:
    """The processes and their pipes; a failure ends them, since the other rank may hang in a collective."""

    def __init__(self) -> None:
        self.owner = os.getpid()
        self._folder = tempfile.TemporaryDirectory(prefix="alignzoo-ranks-")
        folder = Path(self._folder.name)
        self._logs = [folder / f"rank-{rank}.log" for rank in range(RANKS)]
        self._processes = [self._start(rank, folder / "rendezvous") for rank in range(RANKS)]

    def _start(self, rank: int, rendezvous: Path) -> subprocess.Popen[bytes]:
        extra = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": RANKS, "LOCAL_WORLD_SIZE": RANKS, "OMP_NUM_THREADS": 1}
        given = {name: str(value) for name, value in extra.items()}
        if sys.platform == "linux":
            given["GLOO_SOCKET_IFNAME"] = "lo"  # a machine's own name does not always resolve
        command = [sys.executable, "-m", "alignzoo.testing.rank_worker", str(rendezvous), str(PATIENCE * 0.75)]
        with self._logs[rank].open("wb") as log:
            return subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=environment(CUDA_VISIBLE_DEVICES="", **given),
            )

    @property
    def alive(self) -> bool:
        return self.owner == os.getpid() and all(process.poll() is None for process in self._processes)

    def run(self, message: bytes) -> list[Any]:
        deadline = time.monotonic() + PATIENCE
        try:
            for process in self._processes:
                assert process.stdin is not None
                process.stdin.write(_HEADER.pack(len(message)) + message)
                process.stdin.flush()
            return self._answers(deadline)
        except BaseException:
            self.close()
            raise

    def _answers(self, deadline: float) -> list[Any]:
        """One answer per rank, in their order, read as they come: the first failure counts."""
        answers: dict[int, Any] = {}
        while len(answers) < RANKS:
            waiting: dict[Any, int] = {p.stdout: rank for rank, p in enumerate(self._processes) if rank not in answers}
            ready, _, _ = select.select(list(waiting), [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                raise Violation(
                    expected=f"an answer from {RANKS} ranks within {PATIENCE:g} s",
                    found=f"none from rank {' and '.join(str(rank) for rank in waiting.values())}",
                    remedy="all ranks must take the same collective steps, whatever their own pairs are",
                )
            for stream in ready:
                rank = waiting[stream]
                good, answer = self._read(rank, stream)
                if not good:
                    raise Violation(
                        expected=f"the step to run on {RANKS} ranks",
                        found=f"on rank {rank}: {answer}",
                        remedy="the method must be importable in another process, and work on a share of the step",
                    )
                answers[rank] = answer
        return [answers[rank] for rank in range(RANKS)]

    def _read(self, rank: int, stream: Any) -> tuple[bool, Any]:
        header = stream.read(_HEADER.size)
        if len(header) < _HEADER.size:
            log = self._logs[rank].read_text(errors="replace").strip().splitlines()
            return False, f"the process ended: {log[-1] if log else 'it said nothing'}"
        answer: tuple[bool, Any] = pickle.loads(stream.read(_HEADER.unpack(header)[0]))
        return answer

    def close(self) -> None:
        """End the processes."""
        if self.owner != os.getpid():
            return
        for process in self._processes:
            process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    with contextlib.suppress(OSError):  # what could not be written to a process that has ended
                        stream.close()
        self._folder.cleanup()


_current: _Ranks | None = None


def _ranks() -> _Ranks:
    """This process's ranks, started when first needed, and again after a failure."""
    global _current
    if _current is None or not _current.alive:
        if _current is not None:
            _current.close()
        _current = _Ranks()
        atexit.register(_current.close)
    return _current
