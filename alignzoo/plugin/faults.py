"""A stranger's failure in one line, and questions to the file system that cannot fail."""

from __future__ import annotations

import traceback
from pathlib import Path

from pydantic import ValidationError

from alignzoo.errors import Escape
from alignzoo.plugin.card import PluginAPIError


def describe_error(error: BaseException) -> str:
    """An exception in one line."""
    if isinstance(error, ValidationError):
        problems = (f"{'.'.join(map(str, p['loc'])) or 'value'}: {p['msg']}" for p in error.errors())
        return f"invalid {error.title}: {'; '.join(problems)}"
    if isinstance(error, (PluginAPIError, Escape)):
        return str(error)
    return " ".join(traceback.format_exception_only(error)[-1].split())


def is_file(path: Path) -> bool:
    """Whether there is a file; a name that no file can have, or a place one may not look into, is none."""
    try:
        return path.is_file()
    except OSError:
        return False
