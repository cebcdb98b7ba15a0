"""Losses with an offset, a target or a weight of the pair, against what their authors' functions gave."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from recorded import oracle

from alignzoo import PairBatch, load_method


@pytest.mark.parametrize("name", ["alpha-dpo", "bfpo", "dpo-shift", "mallows-dpo", "mallows-ipo", "odpo"])
def test_adapted_losses_equal_the_authors(name: str) -> None:
    """Values, to the last bits of float64; of α-DPO in a first step of these pairs."""
    recorded = oracle(name)
    for case in recorded["cases"]:
        pairs = replace(PairBatch(**recorded["pairs"]), progress=case.get("progress", 0.0))
        loss = load_method("loss", name, **case["options"])
        loss.observe(pairs)
        torch.testing.assert_close(loss(pairs), case["losses"], rtol=1e-12, atol=0)
