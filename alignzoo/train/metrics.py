"""Figures of a set of pairs, weighted by pair, and the file they go to."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from alignzoo.interfaces import PreferenceLoss
from alignzoo.pairs import PairBatch
from alignzoo.train.objective import Objective, rewards_of

METRICS_FILE = "metrics.jsonl"
_ROUNDING = 5e-7  # of summed log-probs in fp32: twice what other batches of the same pairs were seen to change


@torch.no_grad()
def pair_metrics(loss: PreferenceLoss, pairs: PairBatch) -> dict[str, float]:
    """Means over all pairs: implicit rewards of the loss, their margin and accuracy (a tie counts half), log-probs."""
    chosen, rejected = rewards_of(loss, pairs)
    margin = chosen - rejected
    better, worse = rewards_of(loss, _settled(pairs))
    accuracy = (better > worse).to(margin.dtype) + 0.5 * (better == worse).to(margin.dtype)
    means = {
        "rewards/chosen": chosen,
        "rewards/rejected": rejected,
        "rewards/margins": margin,
        "rewards/accuracies": accuracy,
        "logps/chosen": pairs.chosen_logps,
        "logps/rejected": pairs.rejected_logps,
    }
    values = torch.stack([value.mean() for value in means.values()]).tolist()  # one wait for the device
    return dict(zip(means, values, strict=True))


def _settled(pairs: PairBatch) -> PairBatch:
    """The pairs with the reference at the policy where they differ by rounding: which of two responses gained must not
    be read from the last digit, and an untrained policy ties everywhere, in whatever batches the two were computed."""
    near: dict[str, torch.Tensor] = {}
    for name in ("chosen_logps", "rejected_logps"):
        policy, reference = getattr(pairs, name), getattr(pairs, f"ref_{name}")
        if reference is not None:
            same = torch.isclose(policy, reference, rtol=_ROUNDING, atol=0)
            near[f"ref_{name}"] = torch.where(same, policy, reference)
    return replace(pairs, **near)


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
