"""The errors a user can cause, each with the exit code of the command line.

Exit codes: 0 ok, 1 the run failed, 2 usage, 3 incompatible combination, 4 a requested plugin is broken,
130 interrupted. A message says what is wrong and where; ``hint`` says what to do next.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class AlignzooError(Exception):
    """The run failed for a reason the user can act on (exit code 1)."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message if self.hint is None else f"{self.message}\n  {self.hint}"


class DataError(AlignzooError):
    """Input data that cannot be read or used: names the file, the line and the field where there is one."""


class ModelError(AlignzooError):
    """A model, tokenizer or adapter that cannot be loaded or does not match the request."""


class MethodError(AlignzooError):
    """A method broke its contract or failed on its own: names the method's class (exit code 4)."""

    exit_code = 4


class DamagedError(AlignzooError):
    """A file written by alignzoo whose content has changed or cannot be read.

    Attributes:
        path: the file.
        reason: what is wrong with it.
    """

    def __init__(self, path: Path, reason: str, *, hint: str | None = None) -> None:
        super().__init__(f"{path} is damaged: {reason}", hint=hint)
        self.path = path
        self.reason = reason

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.path, self.reason), vars(self)  # between ranks


class NonFiniteLossError(AlignzooError):
    """The objective became NaN or infinite."""


class Escape(Exception):
    """Third-party code raised something other than an ``Exception``: ``SystemExit``, a cancellation, a panic."""


@contextmanager
def contained() -> Iterator[None]:
    """Wrap third-party code: whatever it raises becomes an ``Exception``, except Ctrl-C."""
    try:
        yield
    except (Exception, KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as error:
        raise Escape(f"{type(error).__name__}: {error}") from error


class UsageError(AlignzooError):
    """A usage error: unknown method or option, a value out of bounds, an output folder in use (exit code 2)."""

    exit_code = 2


class UnknownNameError(UsageError):
    """A name that nothing provides."""


class IncompatibleError(AlignzooError):
    """Methods or settings that cannot be combined (exit code 3).

    Attributes:
        rule: the rule that the combination breaks, without names: it heads all combinations that break it.
    """

    exit_code = 3

    def __init__(self, message: str, *, hint: str | None = None, rule: str = "") -> None:
        super().__init__(message, hint=hint)
        self.rule = rule or message


class BrokenPluginError(AlignzooError):
    """A requested method comes from a plugin that cannot be loaded (exit code 4)."""

    exit_code = 4


class Interrupted(AlignzooError):
    """A request to stop (Ctrl-C, SIGTERM, SIGHUP), after the state was saved (exit code 130)."""

    exit_code = 130
