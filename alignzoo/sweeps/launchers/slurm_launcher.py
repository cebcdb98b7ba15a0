"""Slurm, by submitit: each worker is a job; ``cluster=local`` runs the jobs as processes of this machine."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import submitit

from alignzoo.errors import UsageError
from alignzoo.sweeps.launchers import Maker, Worker
from alignzoo.sweeps.launchers.attend import attend

DAY = 24 * 60
"""Minutes of a job, without ``timeout_min``; submitit's own default is five minutes."""
_FAILED = 1


class _Slurm:
    capacity: int | None = None

    def __init__(self, folder: Path, options: Mapping[str, str]) -> None:
        given: dict[str, Any] = {name: int(v) if v.isdecimal() else v for name, v in options.items()}
        cluster = given.pop("cluster", "slurm")
        self._threads = int(given.get("cpus_per_task", 1))
        try:
            self._executor = submitit.AutoExecutor(folder=folder, cluster=cluster)
            self._executor.update_parameters(**{"name": "alignzoo", "timeout_min": DAY, **given})
        except (ValueError, TypeError, NameError, AssertionError, RuntimeError) as error:
            raise UsageError(
                f"--launcher-option: {error}", hint="options are those of submitit, such as slurm_partition=gpu"
            ) from error
        self._jobs: list[_Job] = []

    def start(self, command: Sequence[str], log: Path, number: int, workers: int) -> Worker:
        environment = {"OMP_NUM_THREADS": str(self._threads)}
        job = _Job(self._executor.submit(attend, list(command), str(log), environment, str(Path.cwd())))
        self._jobs.append(job)
        return job

    def close(self) -> None:
        for job in self._jobs:
            if job.ended() is None:
                with contextlib.suppress(Exception):
                    job.job.cancel(check=False)


class _Job:
    def __init__(self, job: Any) -> None:
        self.job = job
        self._code: int | None = None

    def ended(self) -> int | None:
        if self._code is None and self.job.done():
            try:
                self._code = int(self.job.result())
            except Exception:  # cancelled, out of time, or its node died: submitit has an error for each
                self._code = _FAILED
        return self._code

    def stop(self) -> None:
        self.job.cancel(check=False)


def maker(options: Mapping[str, str]) -> Maker:
    """Jobs of Slurm; options are the parameters of submitit's ``AutoExecutor``, and ``cluster``."""
    if options.get("cluster", "slurm") == "slurm" and shutil.which("srun") is None:
        raise UsageError(
            "--launcher slurm: there is no Slurm here (no srun)",
            hint="start it on a login node, or try it out with --launcher-option cluster=local",
        )
    return lambda folder: _Slurm(folder, options)
