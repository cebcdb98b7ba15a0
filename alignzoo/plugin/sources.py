"""Where plugins are looked for."""

from __future__ import annotations

import shlex
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Sources:
    """Where plugins are looked for.

    Attributes:
        third_party: installed distributions other than alignzoo (``--no-plugins`` leaves them out).
        files: plugins that are one file each (``--plugin FILE``).
    """

    third_party: bool = True
    files: tuple[Path, ...] = ()


current: ContextVar[Sources] = ContextVar("alignzoo_plugin_sources", default=Sources())  # noqa: B039


def sources() -> Sources:
    """Where plugins are looked for now."""
    return current.get()


def plugin_words() -> str:
    """The command-line words, with a space in front, that name the plugin files of this process."""
    return "".join(f" --plugin {shlex.quote(str(file))}" for file in sources().files)
