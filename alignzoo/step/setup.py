"""What a controller can read once, before training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from alignzoo.contract.step import MovingReference
from alignzoo.errors import AlignzooError
from alignzoo.report import Reporter

if TYPE_CHECKING:
    from alignzoo.probe.probe import Probe


def _no_texts(given: str | None, count: int) -> list[list[int]]:
    raise AlignzooError("there are no texts outside a run", hint="use SetupContext(texts=...)")


def _no_reference() -> MovingReference:
    raise AlignzooError(
        "the reference of this run does not move", hint="a card that says moves_reference gets one that does"
    )


@dataclass(frozen=True)
class SetupContext:
    """What a controller can read once, before training.

    Attributes:
        model: the policy with the initial weights, unwrapped.
        probe: the safety probe of that model: trained now, reused, or loaded from the given folder.
        folder: the run folder, for files to keep with the run; None on ranks that do not write.
        steps: optimizer steps of the whole run; None outside a run.
        texts: token ids of this many general texts from the given file, or else of training data (prompt and chosen
            response); the same on all ranks and after a resume, fewer if there are fewer.
        moving_reference: the reference, if the card says ``moves_reference``.
    """

    model: torch.nn.Module
    seed: int
    report: Reporter
    probe: Callable[[str | None], Probe]
    folder: Path | None = None
    steps: int | None = None
    texts: Callable[[str | None, int], list[list[int]]] = _no_texts
    moving_reference: Callable[[], MovingReference] = _no_reference
