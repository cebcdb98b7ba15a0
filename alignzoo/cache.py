"""The folder for what is kept between runs."""

from __future__ import annotations

import os
from pathlib import Path


def cache_root() -> Path:
    """``$ALIGNZOO_CACHE``, or ``~/.cache/alignzoo``."""
    return Path(os.environ.get("ALIGNZOO_CACHE") or "~/.cache/alignzoo").expanduser()
