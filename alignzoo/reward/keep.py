"""Scores kept between runs: one file per reward and set of responses, whole or not there."""

from __future__ import annotations

import contextlib
import hashlib
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from alignzoo.base.cache import cache_folder
from alignzoo.base.files import scratch
from alignzoo.data.parts import Scores
from alignzoo.report import Reporter


def kept(key: str, count: int, report: Reporter) -> Scores | None:
    """The scores of ``count`` pairs under a key; a damaged file makes way for another."""
    path = _file(key)
    if not path.is_file():
        return None
    try:
        with safe_open(path, "pt") as file:
            scores = Scores(file.get_tensor("chosen"), file.get_tensor("rejected"))
            stated = (file.metadata() or {}).get("content")
        if stated != _content(scores) or any(s.shape != (count,) for s in (scores.chosen, scores.rejected)):
            raise ValueError("its content is not what was written")
    except (OSError, SafetensorError, ValueError) as error:
        report.warn(f"the scores kept in {path} are damaged ({error}); scoring again")
        with contextlib.suppress(OSError):
            path.unlink()
        return None
    return scores


def keep(key: str, scores: Scores, report: Reporter) -> None:
    """Write scores for later runs, whole or not at all."""
    path = _file(key)
    tensors = {"chosen": scores.chosen, "rejected": scores.rejected}
    try:
        with scratch(path.parent) as beside:
            whole = beside / path.name
            save_file(tensors, whole, metadata={"content": _content(scores)})
            whole.replace(path)
    except (OSError, SafetensorError) as error:
        report.warn(f"the scores are not kept for later runs: {error}; ALIGNZOO_CACHE names another folder for them")


def _file(key: str) -> Path:
    return cache_folder("scores") / f"{key}.safetensors"


def _content(scores: Scores) -> str:
    """A hash of scores, 32 hex digits."""
    content = hashlib.sha256()
    for tensor in (scores.chosen, scores.rejected):
        content.update(tensor.to(torch.float64).numpy().tobytes())
    return content.hexdigest()[:32]
