"""The pairs that are set aside for the safety probe, and whether they are enough to train and judge one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from alignzoo.data.columns import column
from alignzoo.data.splits import split_by_prompt
from alignzoo.errors import DataError
from alignzoo.plan.settings import PROBE_PAIRS, PROBE_SHARE

if TYPE_CHECKING:
    from datasets import Dataset

PROBE_VALIDATION = 0.3
"""Share of the probe's prompts that validate it."""
LEAST_VALIDATION = 5
"""Safe, and unsafe, responses that a probe is judged on at least: with as many of each, a direction that means nothing
separates them without an error once in 252 times."""


def set_aside(pairs: Dataset, share: float | None) -> tuple[Dataset, Dataset | None, Dataset | None]:
    """Training pairs, and the probe's for training and validation (None where ``share`` is 0).

    The parts depend on the pairs and on ``share`` only, never on the methods of a run or its seed.

    Args:
        share: of the prompts; None for the default, which takes less of much data.
    """
    if share is None:
        share = min(PROBE_SHARE, PROBE_PAIRS / max(1, len(pairs)))
    if share == 0:
        return pairs, None, None
    shares = {"train": 1 - share, "probe": share * (1 - PROBE_VALIDATION), "validation": share * PROBE_VALIDATION}
    parts = split_by_prompt(pairs, shares, 0, "probe")
    return parts["train"], parts["probe"], parts["validation"]


def check_probe_pairs(train: Dataset, validation: Dataset, *, hint: str) -> None:
    """Refuse too few pairs for a probe.

    Raises:
        DataError: no safe or no unsafe response to train on, or fewer than ``LEAST_VALIDATION`` of either to validate.
    """
    for name, pairs, least in (("train on", train, 1), ("be judged on", validation, LEAST_VALIDATION)):
        safe, unsafe = _classes(pairs)
        if min(safe, unsafe) < least:
            raise DataError(
                f"the safety probe would have {safe} safe and {unsafe} unsafe responses to {name}; "
                f"it needs at least {least} of each",
                hint=hint,
            )


def _classes(pairs: Dataset) -> tuple[int, int]:
    """Safe and unsafe responses; without labels, chosen ones count as safe and rejected ones as unsafe."""
    if "chosen_safe" not in pairs.column_names:
        return len(pairs), len(pairs)
    safe = sum(int(column(pairs, f"{side}_safe").to_numpy().sum()) for side in ("chosen", "rejected"))
    return safe, 2 * len(pairs) - safe
