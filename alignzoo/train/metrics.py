"""Figures of a set of pairs, weighted by pair, and the file they go to."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from alignzoo.interfaces import PreferenceLoss
from alignzoo.pairs import PairBatch
from alignzoo.train.objective import Objective

METRICS_FILE = "metrics.jsonl"


@torch.no_grad()
def pair_metrics(loss: PreferenceLoss, pairs: PairBatch) -> dict[str, float]:
    """Means over all pairs: implicit rewards of the loss, their margin and accuracy (a tie counts half), log-probs."""
    chosen, rejected = loss.rewards(pairs)
    margin = chosen - rejected
    accuracy = (margin > 0).double() + 0.5 * (margin == 0).double()
    return {
        "rewards/chosen": float(chosen.mean()),
        "rewards/rejected": float(rejected.mean()),
        "rewards/margins": float(margin.mean()),
        "rewards/accuracies": float(accuracy.mean()),
        "logps/chosen": float(pairs.chosen_logps.mean()),
        "logps/rejected": float(pairs.rejected_logps.mean()),
    }


def weight_metrics(objective: Objective, pairs: PairBatch) -> dict[str, float]:
    """``robust/effective_pairs``: (Σw)²/Σw² of the pairs' weights, N where all count the same. Under wrappers only."""
    if not objective.wrappers:
        return {}
    weights = objective.weights(pairs).double()
    return {"robust/effective_pairs": float(weights.sum().square() / weights.square().sum())}


def non_finite(pairs: PairBatch, ids: torch.Tensor) -> list[int]:
    """The ids of the pairs with a log-prob (or another field) that is NaN or infinite."""
    finite = torch.ones(len(pairs), dtype=torch.bool, device=pairs.chosen_logps.device)
    for field in pairs.present().values():
        finite &= torch.isfinite(field.double()).reshape(len(finite), -1).all(-1)
    return [int(i) for i in ids[~finite.to(ids.device)]]


def name_pairs(ids: Sequence[int]) -> str:
    """Pair ids for a message."""
    return ", ".join(map(str, ids[:20])) + (" ..." if len(ids) > 20 else "")


class MetricsFile:
    """``metrics.jsonl``: one object per optimizer step, each whole on the disk when its step is over."""

    def __init__(self, folder: Path, *, resume_at: int | None = None) -> None:
        self.path = folder / METRICS_FILE
        if resume_at is not None:
            self._forget_after(resume_at)

    def append(self, line: dict[str, Any]) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def _forget_after(self, step: int) -> None:
        """Drop the lines of steps that a resumed run takes again, and a half-written last one."""
        if not self.path.is_file():
            return
        kept = []
        for text in self.path.read_text(encoding="utf-8").splitlines():
            try:
                if json.loads(text)["step"] <= step:
                    kept.append(text + "\n")
            except (json.JSONDecodeError, KeyError):
                continue
        partial = self.path.with_suffix(".partial")
        partial.write_text("".join(kept), encoding="utf-8")
        partial.replace(self.path)
