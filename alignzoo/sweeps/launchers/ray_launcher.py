"""Ray: tasks on the cluster there is (``RAY_ADDRESS``, or ``address=``), else on a Ray of this machine."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ray

from alignzoo.errors import UsageError
from alignzoo.sweeps.launchers import Maker, Worker
from alignzoo.sweeps.launchers.attend import attend
from alignzoo.sweeps.launchers.local_launcher import cores

_OPTIONS = ("address", "num_cpus", "num_gpus")
_FAILED = 1


class _Ray:
    def __init__(self, options: Mapping[str, str]) -> None:
        address = options.get("address") or os.environ.get("RAY_ADDRESS")
        if not ray.is_initialized():
            here: dict[str, Any] = {} if address else {"num_cpus": cores(), "include_dashboard": False}
            ray.init(address=address, log_to_driver=False, logging_level="ERROR", **here)
        there = ray.cluster_resources()
        gpus = int(there.get("GPU", 0))
        self._gpus = float(options.get("num_gpus", 1 if gpus else 0))
        self._cpus = float(options.get("num_cpus", 1))
        self.capacity: int | None = max(1, int(gpus // self._gpus if self._gpus else there.get("CPU", 1) // self._cpus))
        self._local, self._asked = not address, "num_cpus" in options
        self._tasks: list[_Task] = []

    def start(self, command: Sequence[str], log: Path, number: int, workers: int) -> Worker:
        cpus = self._cpus if self._asked or not self._local else max(1, cores() // workers)
        environment = {"OMP_NUM_THREADS": str(max(1, int(cpus)))}
        job = ray.remote(num_cpus=cpus, num_gpus=self._gpus, max_retries=0, max_calls=1)(attend)
        task = _Task(job.remote(list(command), str(log), environment, str(Path.cwd())))
        self._tasks.append(task)
        return task

    def close(self) -> None:
        for task in self._tasks:
            if task.ended() is None:
                with contextlib.suppress(Exception):
                    ray.cancel(task.reference, force=True)
        ray.shutdown()


class _Task:
    def __init__(self, reference: Any) -> None:
        self.reference = reference
        self._code: int | None = None

    def ended(self) -> int | None:
        if self._code is None and ray.wait([self.reference], timeout=0)[0]:
            try:
                self._code = int(ray.get(self.reference))
            except ray.exceptions.RayError:  # the task was cancelled, or its process or node died
                self._code = _FAILED
        return self._code

    def stop(self) -> None:
        ray.cancel(self.reference, force=False)


def maker(options: Mapping[str, str]) -> Maker:
    """Tasks of Ray; options ``address``, ``num_cpus`` and ``num_gpus`` of a worker."""
    for name in options:
        if name not in _OPTIONS:
            raise UsageError(f"the launcher ray has no option {name}", hint=f"it has {', '.join(_OPTIONS)}")
    return lambda _folder: _Ray(options)
