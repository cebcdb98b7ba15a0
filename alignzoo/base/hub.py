"""The Hugging Face hub without a network."""

from __future__ import annotations

import os
import re

_SWITCHES = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE")
_UNREACHED = re.compile(r"connect|reach|offline|timed? ?out|resolve", re.IGNORECASE)


def offline_hint(failure: str) -> str | None:
    """What to do about a failure to reach the hub; None for any other failure."""
    if not _UNREACHED.search(failure):
        return None
    switch = next((name for name in _SWITCHES if os.environ.get(name, "").lower() in ("1", "on", "yes", "true")), None)
    if switch is not None:
        return f"{switch} is set, so only the cache is used; unset it, or give a local folder or file"
    return "check the network and the id, or give a local folder or file; HF_HUB_OFFLINE=1 uses only the cache"
