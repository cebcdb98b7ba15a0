"""Observers of a run: plugin code that is notified of what happens and cannot change or break the run.

``alignzoo run --observe NAME`` enables one. It lives in the first process only and is called in this order:
``on_start`` once, ``on_evaluation`` before training, then ``on_step_end``, followed by ``on_evaluation`` and
``on_checkpoint`` when they are due, ``on_evaluation`` after training, ``on_end`` once. A run that fails before it
starts calls nothing. An error in an observer is reported once, and the observer is disabled.
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
    from alignzoo.contract.result import RunResult


class RunObserver:
    """Override the events you are interested in. Every argument is a copy (except for errors); return values are
    ignored, and the current folder, random states and torch's gradient mode are restored."""

    def on_start(self, folder: Path, plan: Mapping[str, Any], steps: int) -> None:
        """Training is about to start or resume: the run folder, ``plan.yaml`` as data, total optimizer steps."""

    def on_step_end(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Optimizer step ``step`` (from 1) is over: its line of ``metrics.jsonl``."""

    def on_evaluation(self, step: int, figures: Mapping[str, float]) -> None:
        """The figures after ``step`` steps (0: before training): ``eval/...``, and those of the data's evaluator."""

    def on_checkpoint(self, step: int, folder: Path) -> None:
        """The checkpoint of ``step`` is complete in ``folder``."""

    def on_end(self, result: RunResult | None, error: BaseException | None) -> None:
        """The run is over: with a result, or with the error that stopped it (an interruption is one)."""


class Observers:
    """Notifies all observers of a run; whatever one raises is caught.

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
            except Exception as error:  # third-party code can raise anything
                del self._active[name]
                self._report.warn(
                    f"observer {name!r} failed in on_{event} and is switched off: {describe_error(error)}"
                )


def _own(fact: Any) -> Any:
    return fact if isinstance(fact, (BaseException, Path)) else copy.deepcopy(fact)


@contextlib.contextmanager
def _left_as_found() -> Iterator[None]:
    """Restore the global state that an observer could change: current folder, random states, torch's gradient mode. Its
    output goes to stderr, since stdout is for the run's result."""
    import torch

    folder, draws, gradients = Path.cwd(), random.getstate(), torch.is_grad_enabled()
    try:
        with contextlib.redirect_stdout(sys.stderr), torch.random.fork_rng():
            yield
    finally:
        torch.set_grad_enabled(gradients)
        random.setstate(draws)
        os.chdir(folder)
