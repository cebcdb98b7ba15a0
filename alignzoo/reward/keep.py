"""Scores cached between runs: one file per reward and set of responses, written atomically."""

from __future__ import annotations

import contextlib
import hashlib
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from alignzoo.base.cache import cache_folder
from alignzoo.base.files import whole
from alignzoo.report import Reporter


def kept(key: str, count: int, report: Reporter) -> torch.Tensor | None:
    """The scores ``(count,)`` under a key; a corrupt file is reported and removed."""
    path = _file(key)
    if not path.is_file():
        return None
    try:
        with safe_open(path, "pt") as file:
            scores = file.get_tensor("scores")
            stated = (file.metadata() or {}).get("content")
        if stated != _content(scores) or scores.shape != (count,):
            raise ValueError("its content is not what was written")
    except (OSError, SafetensorError, ValueError) as error:
        report.warn(f"the cached scores in {path} are corrupt ({error}); scoring again")
        with contextlib.suppress(OSError):
            path.unlink()
        return None
    return scores


def keep(key: str, scores: torch.Tensor, report: Reporter) -> None:
    """Write scores ``(count,)`` for later runs, atomically."""
    path = _file(key)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole(path, durable=False) as written:
            save_file({"scores": scores}, written, metadata={"content": _content(scores)})
    except (OSError, SafetensorError) as error:
        report.warn(f"cannot cache the scores: {error}; set ALIGNZOO_CACHE to a writable folder")


def _file(key: str) -> Path:
    return cache_folder("scores") / f"{key}.safetensors"


def _content(scores: torch.Tensor) -> str:
    """A hash of scores, 32 hex digits."""
    return hashlib.sha256(scores.to(torch.float64).numpy().tobytes()).hexdigest()[:32]
