"""lm-eval inside a command: its messages, bars and random seeds do not leave it."""

from __future__ import annotations

import io
import logging
import random
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout

from alignzoo.report import Reporter

_CUT = "Truncat", "truncat"


@contextmanager
def quiet(report: Reporter) -> Iterator[None]:
    """Whatever lm-eval prints and logs is dropped, except that prompts were cut, which goes to the report.

    A reporter writes to the stream that it was created with, so its own output still appears.
    """
    log = logging.getLogger("lm_eval")
    heard = _Cuts(logging.WARNING)
    level, propagate = log.level, log.propagate
    log.addHandler(heard)
    log.setLevel(logging.WARNING)
    log.propagate = False
    try:
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            yield
    finally:
        log.removeHandler(heard)
        log.setLevel(level)
        log.propagate = propagate
    if heard.count:
        report.warn(f"lm-eval cut {heard.count} prompts or batches that are longer than the model's positions")


@contextmanager
def own_random_state(python: int, numpy: int, torch: int) -> Iterator[None]:
    """The global generators with seeds of their own, and afterwards as they were before."""
    import numpy as np
    import torch as pytorch

    before = random.getstate(), np.random.get_state()  # noqa: NPY002
    with pytorch.random.fork_rng():
        random.seed(python)
        np.random.seed(numpy)  # noqa: NPY002
        pytorch.manual_seed(torch)
        try:
            yield
        finally:
            random.setstate(before[0])
            np.random.set_state(before[1])  # noqa: NPY002


class _Cuts(logging.Handler):
    """Counts what lm-eval logs about prompts that it cut."""

    def __init__(self, level: int) -> None:
        super().__init__(level)
        self.count = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.count += any(word in record.getMessage() for word in _CUT)
