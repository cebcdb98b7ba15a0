"""What a controller may look at once, before training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from alignzoo.errors import AlignzooError
from alignzoo.report import Reporter

if TYPE_CHECKING:
    from alignzoo.probe.probe import Probe


def _no_texts(given: str | None, count: int) -> list[list[int]]:
    raise AlignzooError("there are no texts outside a run", hint="use SetupContext(texts=...)")


@dataclass(frozen=True)
class SetupContext:
    """What a controller may look at once, before training.

    Attributes:
        model: the policy with the weights training starts from, unwrapped.
        probe: the safety probe of that model: trained now, reused, or read from the given folder.
        folder: the run folder, for what should be kept beside the run; None on ranks that do not write.
        steps: optimizer steps of the whole run, None outside of one.
        texts: token ids of so many general texts from the given file, or else of training data (prompt and chosen
            response); the same on all ranks and after a resume, fewer where there are fewer.
    """

    model: torch.nn.Module
    seed: int
    report: Reporter
    probe: Callable[[str | None], Probe]
    folder: Path | None = None
    steps: int | None = None
    texts: Callable[[str | None, int], list[list[int]]] = _no_texts
