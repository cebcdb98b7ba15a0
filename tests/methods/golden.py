"""Four pairs with hand-checkable log-probs, and what reference implementations give on them (float64)."""

from __future__ import annotations

import torch

from alignzoo import PairBatch
from alignzoo.contract.responses import ResponseBatch


def golden_pairs() -> PairBatch:
    def column(*values: float) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.float64)

    return PairBatch(
        chosen_logps=column(-12, -30.5, -8.25, -20),
        rejected_logps=column(-14.5, -28, -9, -33),
        chosen_lengths=column(10, 20, 6, 16),
        rejected_lengths=column(12, 18, 7, 25),
        ref_chosen_logps=column(-13, -29, -8.75, -22.5),
        ref_rejected_logps=column(-13.5, -29.5, -8.5, -30),
    )


def golden_responses() -> ResponseBatch:
    """The same as responses, the chosen one of each pair first."""
    return ResponseBatch.of_pairs(golden_pairs())


GOLDEN = {
    ("dpo", (("beta", 0.1),)): (0.598139, 0.854355, 0.644397, 0.455492),
    ("ipo", (("tau", 0.1), ("logps", "sum"))): (9.0, 64.0, 16.0, 0.25),
    ("ipo", (("tau", 0.1), ("logps", "average"))): (23.200278, 26.608403, 23.476332, 22.313814),
    ("simpo", (("beta", 2.0), ("gamma_beta_ratio", 0.25))): (0.963735, 0.936479, 1.088919, 0.889260),
}
DRDPO_ON_DPO = 0.628059
