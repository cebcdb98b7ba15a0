"""Engines that start the worker processes of a sweep: this machine, Ray, Slurm."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from alignzoo.base.suggest import suggest
from alignzoo.errors import UsageError

NAMES = ("local", "ray", "slurm")
_EXTRA = {"ray": "ray", "slurm": "submitit"}


class Worker(Protocol):
    """A worker process, wherever it runs."""

    def ended(self) -> int | None:
        """Its exit code, negative for a signal that killed it; None while it runs (or waits for its turn)."""

    def stop(self) -> None:
        """Ask it to save its run and end."""


class Launcher(Protocol):
    """An engine.

    Attributes:
        capacity: workers that it can run at a time; None if only the user knows.
    """

    capacity: int | None

    def start(self, command: Sequence[str], log: Path, number: int, workers: int) -> Worker:
        """Start a worker; what it prints outside of its runs goes to ``log``.

        Args:
            number: which of the ``workers`` side by side it is, from 0.
        """

    def close(self) -> None:
        """Stop all workers at once, without saving."""


Maker = Callable[[Path], Launcher]


def launcher_of(name: str, options: Mapping[str, str]) -> Maker:
    """The engine of a name: given a folder for files of its own, it starts.

    Args:
        options: of the engine, as typed.

    Raises:
        UsageError: there is none, it needs a library that is missing, or has no such option.
    """
    if name not in NAMES:
        raise UsageError(f"unknown launcher {name!r}", hint=suggest(name, NAMES) or f"there are {', '.join(NAMES)}")
    try:
        module = importlib.import_module(f"{__name__}.{name}_launcher")
    except ModuleNotFoundError as error:
        if error.name != _EXTRA.get(name):
            raise
        raise UsageError(
            f"--launcher {name} needs {error.name}, which is not installed", hint=f"pip install 'alignzoo[{name}]'"
        ) from error
    maker: Maker = module.maker(options)
    return maker
