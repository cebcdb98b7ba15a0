"""Ctrl-C in a conversation: it stops a response, and at the prompt it ends the conversation."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Left(KeyboardInterrupt):
    """Ctrl-C at the prompt, or a second one while a response is generated. Other requests to stop (SIGTERM, a closed
    terminal) are a plain ``KeyboardInterrupt``."""


class CtrlC:
    """What Ctrl-C does at the moment.

    Attributes:
        pressed: since the response began. The response ends at its next piece, where the model is whole.
    """

    def __init__(self) -> None:
        self.pressed = False
        self._generating = False

    @contextmanager
    def handled(self) -> Iterator[None]:
        """For the time of a conversation."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = signal.signal(signal.SIGINT, self._press)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    @contextmanager
    def stops_responses(self) -> Iterator[None]:
        """Inside, the first one is noted in :attr:`pressed`, and the next raises :class:`Left`."""
        self.pressed, self._generating = False, True
        try:
            yield
        finally:
            self._generating = False

    def _press(self, _number: int, _frame: Any) -> None:
        if not self._generating or self.pressed:
            raise Left
        self.pressed = True
