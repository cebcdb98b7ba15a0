"""Four pairs with hand-checkable log-probs, and what reference implementations give on them (float64)."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from alignzoo import PairBatch
from alignzoo.contract.responses import ResponseBatch


def golden_pairs(**extra: tuple[Any, ...]) -> PairBatch:
    """The pairs; ``extra`` are further fields, such as ``chosen_scores=(…)``, of tokens with a tuple per pair."""

    def column(*values: Any) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.float64)

    pairs = PairBatch(
        chosen_logps=column(-12, -30.5, -8.25, -20),
        rejected_logps=column(-14.5, -28, -9, -33),
        chosen_lengths=column(10, 20, 6, 16),
        rejected_lengths=column(12, 18, 7, 25),
        ref_chosen_logps=column(-13, -29, -8.75, -22.5),
        ref_rejected_logps=column(-13.5, -29.5, -8.5, -30),
    )
    given: dict[str, Any] = {name: column(*values) for name, values in extra.items()}
    return replace(pairs, **given)


def golden_responses() -> ResponseBatch:
    """The same as responses, the chosen one of each pair first."""
    return ResponseBatch.of_pairs(golden_pairs())


@dataclass(frozen=True)
class Golden:
    """The values of a loss on the pairs.

    Attributes:
        values: of the four pairs.
        fields: further fields of the pairs.
        tolerance: absolute; the values are known to six decimals.
    """

    name: str
    values: tuple[float, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    fields: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    tolerance: float = 1e-6

    def __str__(self) -> str:
        return "-".join([self.name, *(f"{name}={value}" for name, value in self.options.items())])


def _all() -> list[Golden]:
    """The rows of every family, from the modules of ``goldens``."""
    import goldens

    found = []
    for module in sorted(info.name for info in pkgutil.iter_modules(goldens.__path__)):
        found += importlib.import_module(f"goldens.{module}").GOLDEN
    return found


GOLDEN: list[Golden] = _all()
DRDPO_ON_DPO = 0.628059
