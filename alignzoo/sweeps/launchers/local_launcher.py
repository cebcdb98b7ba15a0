"""Processes of this machine, one per device."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from alignzoo.errors import UsageError
from alignzoo.sweeps.launchers import Maker, Worker

MEMORY_PER_WORKER = 2 << 30
"""Bytes: a CPU worker takes 0.6 GiB before its model is loaded."""


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def devices() -> int:
    """CUDA devices; torch, which takes seconds to import, is only asked where there may be some."""
    if not (Path("/dev/nvidiactl").exists() or Path("/dev/kfd").exists()):
        return 0
    import torch

    return torch.cuda.device_count()


class _Local:
    def __init__(self) -> None:
        self._devices = devices()
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        self.capacity: int | None = self._devices or max(1, min(cores(), memory // MEMORY_PER_WORKER))
        self._processes: list[subprocess.Popen[bytes]] = []

    def start(self, command: Sequence[str], log: Path, number: int, workers: int) -> Worker:
        environment = {"OMP_NUM_THREADS": str(max(1, cores() // workers)), **os.environ}
        if self._devices:
            seen = os.environ.get("CUDA_VISIBLE_DEVICES")
            names = seen.split(",") if seen else [str(index) for index in range(self._devices)]
            environment["CUDA_VISIBLE_DEVICES"] = names[number % len(names)]
        with log.open("ab") as output:
            process = subprocess.Popen(
                [*command, "--with-parent"],
                stdin=subprocess.PIPE,  # closed when this process dies, however it does
                stdout=output,
                stderr=output,
                env=environment,
                start_new_session=True,  # Ctrl-C reaches the workers through this process only
            )
        self._processes.append(process)
        return _Process(process)

    def close(self) -> None:
        for process in self._processes:
            if process.poll() is None:
                process.kill()
                process.wait()
            if process.stdin is not None:
                process.stdin.close()


class _Process:
    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    def ended(self) -> int | None:
        return self._process.poll()

    def stop(self) -> None:
        self._process.send_signal(signal.SIGTERM)


def maker(options: Mapping[str, str]) -> Maker:
    """Processes of this machine; there are no options."""
    if options:
        raise UsageError(
            f"the launcher local has no option {next(iter(options))}", hint="--workers sets how many processes"
        )
    return lambda _folder: _Local()
