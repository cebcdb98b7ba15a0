"""Third-party failures in one line, and file-system checks that cannot fail."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from pathlib import Path

from pydantic import ValidationError

from alignzoo.contract.card import PluginAPIError
from alignzoo.errors import Escape


def describe_error(error: BaseException) -> str:
    """An exception in one line."""
    if isinstance(error, ValidationError):
        problems = (f"{'.'.join(map(str, p['loc'])) or 'value'}: {p['msg']}" for p in error.errors())
        return f"invalid {error.title}: {'; '.join(problems)}"
    if isinstance(error, (PluginAPIError, Escape)):
        return str(error)
    if isinstance(error, SyntaxError):
        where = f" ({error.filename}:{error.lineno})" if error.filename else ""
        return f"{type(error).__name__}: {error.msg}{where}"
    return " ".join(traceback.format_exception_only(error)[-1].split())


def places(error: BaseException) -> Iterator[tuple[str, str]]:
    """``(top-level package, FILE:LINE)`` of the frames that an error came through, innermost first."""
    for frame, line in reversed(list(traceback.walk_tb(error.__traceback__))):
        yield package_of(frame.f_globals.get("__name__") or ""), f"{frame.f_code.co_filename}:{line}"


def package_of(module: str) -> str:
    """The top-level package of a module's name."""
    return module.partition(".")[0]


def exists(path: str) -> bool:
    """Whether there is anything of that name, likewise."""
    try:
        return Path(path).exists()
    except OSError:
        return False


def is_file(path: Path) -> bool:
    """Whether there is a file; a name that no file can have, or a place one may not look into, is none."""
    try:
        return path.is_file()
    except OSError:
        return False
