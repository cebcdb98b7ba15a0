"""Whether the data of a suite is here, without reading it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from alignzoo.evaluate.suites.readers import local_source
from alignzoo.evaluate.suites.suite_file import SuiteFacts


@dataclass(frozen=True)
class Place:
    """Where the data of a suite is.

    Attributes:
        kind: local ``files``; ``made`` by a function of the package; in the hub's ``cache``.
        origin: the files, the function or the dataset.
    """

    kind: Literal["files", "made", "cache"]
    origin: str


def place_of(facts: SuiteFacts, folders: Sequence[Path]) -> Place | None:
    """Where :func:`~alignzoo.evaluate.suites.readers.load` takes the prompts from; None if nowhere yet."""
    local = local_source(facts, folders)
    if local is not None:
        return Place("files", ", ".join(str(path) for path in local[1]))
    for source in facts.sources:
        if source.function is not None:
            return Place("made", source.function)
    for source in facts.sources:
        if source.hub is not None:
            return Place("cache", str(source.dataset)) if _cached(source.hub) else None
    return None


def _cached(dataset: str) -> bool:
    """Whether ``datasets`` has prepared the dataset before; importing it to ask takes seconds."""
    home = os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "huggingface")
    cache = Path(os.environ.get("HF_DATASETS_CACHE") or Path(home, "datasets")).expanduser()
    return (cache / dataset.replace("/", "___")).is_dir()
