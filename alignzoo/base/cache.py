"""The folder of everything that is cached between runs."""

from __future__ import annotations

import os
from pathlib import Path

from alignzoo.base.files import clear_leftovers, local_path


def cache_root() -> Path:
    """``$ALIGNZOO_CACHE``, or ``~/.cache/alignzoo``."""
    return local_path(os.environ.get("ALIGNZOO_CACHE") or "~/.cache/alignzoo")


def cache_folder(name: str) -> Path:
    """One of the caches inside :func:`cache_root`, after removing unfinished work of killed processes."""
    folder = cache_root() / name
    clear_leftovers(folder)
    return folder
