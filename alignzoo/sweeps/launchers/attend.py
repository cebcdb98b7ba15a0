"""A worker as the child of a job of another engine."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

_TICK = 0.2
"""Seconds between looks at the worker: Ray cancels by an exception, which a wait without end would never notice."""


def attend(command: Sequence[str], log: str, environment: Mapping[str, str], folder: str) -> int:
    """Run a worker until it ends; if this job is cancelled, let the worker save its run first.

    Returns:
        Its exit code.
    """
    with Path(log).open("ab") as output:
        child = subprocess.Popen(
            [*command, "--with-parent"],
            stdin=subprocess.PIPE,  # closed when this process dies, however it does
            stdout=output,
            stderr=output,
            env={**os.environ, **environment},
            cwd=folder,
            start_new_session=True,
        )
    try:
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                return child.wait(_TICK)
    except BaseException:
        child.terminate()
        child.wait()
        raise
