"""Robust wrappers against what their authors' functions gave (README.md here says how it was recorded)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from recorded import oracle

from alignzoo import PairBatch, load_method
from alignzoo.interfaces import PreferenceLoss
from alignzoo.plugin import Options

close = torch.testing.assert_close


class OfMargins(PreferenceLoss):
    """−log σ(z), where z is the chosen response's log-prob minus the rejected one's."""

    def __init__(self) -> None:
        super().__init__(Options())

    def __call__(self, pairs: PairBatch) -> torch.Tensor:
        return -torch.nn.functional.logsigmoid(pairs.chosen_logps - pairs.rejected_logps)


def of_margins(z: torch.Tensor, progress: float = 0.0) -> PairBatch:
    """Pairs with these margins."""
    zero, ones = torch.zeros_like(z), torch.ones_like(z)
    return PairBatch(z, zero, ones, ones, progress=progress)


def test_cdpo_equals_the_authors() -> None:
    recorded = oracle("cdpo")
    for case in recorded["cases"]:
        loss, wrapper = load_method("loss", "dpo", beta=case["beta"]), load_method("robust", "cdpo", **case["options"])
        close(wrapper.per_pair(loss, PairBatch(**recorded["pairs"])), case["losses"], rtol=1e-12, atol=0)


def test_kldpo_equals_the_authors() -> None:
    """The value over a batch, and its gradient by every log-prob."""
    recorded = oracle("kldpo")
    for case in recorded["cases"]:
        pairs = PairBatch(**recorded["pairs"])
        leaves = [pairs.chosen_logps.clone().requires_grad_(), pairs.rejected_logps.clone().requires_grad_()]
        loss = load_method("loss", "dpo", beta=case["beta"])
        losses = loss(replace(pairs, chosen_logps=leaves[0], rejected_logps=leaves[1]))
        value = load_method("robust", "kldpo", **case["options"]).objective(losses)
        assert value.item() == pytest.approx(case["value"], rel=1e-12)
        gradients = torch.autograd.grad(value, leaves)
        close(gradients[0], case["gradient_chosen"], rtol=1e-11, atol=0)
        close(gradients[1], case["gradient_rejected"], rtol=1e-11, atol=0)


def test_tails_equal_the_authors() -> None:
    """The weight of each loss, which is what reaches their optimizer. Shares of 20 losses are whole numbers."""
    recorded = oracle("doro")
    assert {case["name"] for case in recorded["cases"]} == {"cvar", "chi2-dro", "doro"}
    for case in recorded["cases"]:
        wrapper = load_method("robust", case["name"], **case["options"])
        searched = case["name"] == "chi2-dro" or case["options"].get("inner") == "chi2"  # their η is a search's
        close(wrapper.weights(recorded["losses"]), case["weights"], rtol=0, atol=1e-7 if searched else 1e-12)


def test_winsor_equals_the_authors() -> None:
    """Flips, budget, shares and values; they cast to fp32 in between."""
    for case in oracle("wdpo-winsor")["cases"]:
        wrapper: Any = load_method("robust", "wdpo-winsor", **case["options"])
        pairs = of_margins(case["z"], progress=0.5)
        close(wrapper.per_pair(OfMargins(), pairs), case["losses"], rtol=1e-5, atol=1e-6)
        if "flips" in case:
            close(wrapper.flips(case["z"]), case["flips"], rtol=1e-5, atol=1e-7)
            close(float(wrapper.budget(case["z"])), case["budget"], rtol=1e-6, atol=0)


def test_wdpo_equals_the_authors() -> None:
    """Losses of single pairs with the penalty, given the norms of the log-probs' gradients in the embeddings."""
    recorded = oracle("wdpo")
    pairs = PairBatch(**recorded["pairs"])
    for case in recorded["cases"]:
        wrapper = load_method("robust", "wdpo", **case["options"])
        values = wrapper.per_pair(load_method("loss", "dpo", beta=case["beta"]), pairs)
        close(values, case["losses"], rtol=1e-12, atol=0)
