"""Observers of a run: a plugin's code that is told what happens and cannot change or break it.

``alignzoo run --observe NAME`` asks for one. It lives in the first process only and is told in this order: ``on_start``
once, ``on_evaluation`` before training, then ``on_step_end``, followed by ``on_evaluation`` and ``on_checkpoint`` where
they fall, ``on_evaluation`` after training, ``on_end`` once. A run that fails before it starts tells nothing. An error
in an observer is reported once, and it is switched off.
"""

from __future__ import annotations

import contextlib
import copy
import os
import random
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignzoo.errors import contained
from alignzoo.plugin.faults import describe_error
from alignzoo.report import Reporter

if TYPE_CHECKING:
    from alignzoo.runs.outcome import RunResult


class RunObserver:
    """Override what you want to hear of. Every argument is a copy (an error is the error itself); nothing that is
    returned is used, and the current folder, random states and torch's gradient mode come back as they were."""

    def on_start(self, folder: Path, plan: Mapping[str, Any], steps: int) -> None:
        """Training is about to begin, or to go on: the run folder, ``plan.yaml`` as data, optimizer steps in all."""

    def on_step_end(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Optimizer step ``step`` (from 1) is over: its line of ``metrics.jsonl``."""

    def on_evaluation(self, step: int, figures: Mapping[str, float]) -> None:
        """The figures after ``step`` steps (0: before training): ``eval/...``, and those of the data's evaluator."""

    def on_checkpoint(self, step: int, folder: Path) -> None:
        """The checkpoint of ``step`` is whole in ``folder``."""

    def on_end(self, result: RunResult | None, error: BaseException | None) -> None:
        """The run is over: with a result, or with the error that stopped it (an interruption is one)."""


class Observers:
    """Tells all observers of a run; whatever comes out of one is caught.

    Args:
        observers: name -> observer.
        report: where a failing observer is reported.
    """

    def __init__(self, observers: Mapping[str, RunObserver], report: Reporter) -> None:
        self._active = dict(observers)
        self._report = report
        self._started = False

    def tell(self, event: str, *facts: Any) -> None:
        """Call ``on_<event>`` of every observer that still works."""
        self._started = self._started or event == "start"
        if not self._started:
            return
        for name, observer in list(self._active.items()):
            try:
                with contained(), _left_as_found():
                    getattr(observer, f"on_{event}")(*(_own(fact) for fact in facts))
            except Exception as error:  # a stranger's code: anything can come out of it
                del self._active[name]
                self._report.warn(
                    f"observer {name!r} failed in on_{event} and is switched off: {describe_error(error)}"
                )


def _own(fact: Any) -> Any:
    return fact if isinstance(fact, (BaseException, Path)) else copy.deepcopy(fact)


@contextlib.contextmanager
def _left_as_found() -> Iterator[None]:
    """What an observer could change for everybody comes back: the folder, random states, torch's gradient mode. What it
    prints goes to stderr, for stdout is for the run's own result."""
    import torch

    folder, draws, gradients = Path.cwd(), random.getstate(), torch.is_grad_enabled()
    try:
        with contextlib.redirect_stdout(sys.stderr), torch.random.fork_rng():
            yield
    finally:
        torch.set_grad_enabled(gradients)
        random.setstate(draws)
        os.chdir(folder)
