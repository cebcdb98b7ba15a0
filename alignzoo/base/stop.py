"""Requests to stop: Ctrl-C, SIGTERM (from a scheduler) and SIGHUP (the terminal was closed)."""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import stat
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

_SAME_REQUEST = 0.5
"""Seconds within which a second signal is the same request: launchers and shells forward signals we also receive."""
_NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_interrupted, _over = threading.Event(), threading.Event()
_blocks: list[object] = []
"""The handlers of the blocks below that were entered and not left."""
_outcome: list[int] = []


@contextmanager
def interruptible() -> Iterator[None]:
    """A request to stop raises ``KeyboardInterrupt`` in the body, so that it can clean up."""

    def interrupt(_first: bool) -> None:
        _interrupted.set()
        raise KeyboardInterrupt

    with _on_request(interrupt):
        yield


@contextmanager
def stop_requests(notify: Callable[[], None]) -> Iterator[threading.Event]:
    """An event set by the first request, after which ``notify`` is called; a second one interrupts immediately."""
    event = threading.Event()

    def request(first: bool) -> None:
        if not first:
            _interrupted.set()
            raise KeyboardInterrupt
        event.set()
        with contextlib.suppress(RuntimeError, OSError):  # the signal came while a line was being printed
            notify()

    with _on_request(request):
        yield event


def was_interrupted() -> bool:
    """Whether a request has interrupted one of these blocks since the outermost began. The code that was interrupted
    may fail with another error: some libraries turn ``KeyboardInterrupt`` into a failed import."""
    return _interrupted.is_set()


def ignore_requests() -> None:
    """Until the outermost of these blocks ends, ignore further requests: only the outcome remains to be reported."""
    if threading.current_thread() is threading.main_thread():
        _over.set()


def keep_exit_code(code: int) -> None:
    """For when all work is done: a request to stop ends the process immediately, with the exit code of its outcome."""
    _outcome.append(code)
    for number in _NUMBERS:
        signal.signal(number, _end)


def _end(_number: int, _frame: Any) -> None:
    os._exit(_outcome[-1])


@atexit.register  # on import, before others do: the first to register is the last to run
def _ignore_last_moments() -> None:
    """Python is about to give signals their default action back, which would change the exit code. From here on, only
    SIGKILL ends a process whose libraries hang as they are unloaded."""
    for number in _NUMBERS:
        if signal.getsignal(number) is _end:
            signal.signal(number, signal.SIG_IGN)


@contextmanager
def _on_request(act: Callable[[bool], None]) -> Iterator[None]:
    """Call ``act`` with whether it is the first request; only in the main thread, where signals arrive."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    process = os.getpid()
    latest: float | None = None

    def handle(number: int, _frame: Any) -> None:
        nonlocal latest
        if os.getpid() != process:  # a forked worker, which has nothing to finish
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        if number == signal.SIGHUP:
            _leave_lost_terminal()
        if _over.is_set():
            return
        now, before = time.monotonic(), latest
        if before is not None and (number == signal.SIGHUP or now - before < _SAME_REQUEST):
            return
        latest = now
        act(before is None)

    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # as nohup sets it
        numbers.append(signal.SIGHUP)
    found = {number: signal.signal(number, handle) for number in numbers}
    _blocks.append(handle)
    try:
        yield
    finally:
        _blocks.remove(handle)
        for number, handler in found.items():
            if signal.getsignal(number) is not _end:  # what keep_exit_code() has set stays
                signal.signal(number, signal.SIG_DFL if handler is None else handler)
        if not _blocks:
            _interrupted.clear()
            _over.clear()


def _leave_lost_terminal() -> None:
    """Redirect output for a closed terminal to nowhere: the next line would fail."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            number = stream.fileno()
            if stat.S_ISCHR(os.fstat(number).st_mode) and not os.isatty(number):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, number)
                os.close(nowhere)
