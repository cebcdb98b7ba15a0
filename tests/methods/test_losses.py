"""Losses on pairs: what they equal. The contract that all methods keep is in tests/testing."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from golden import GOLDEN, Golden, golden_pairs
from trl_dpo import step_of_trl

from alignzoo import list_methods, load_method
from alignzoo.contract.loss import LossCard

LOSSES = [card for card in list_methods("loss") if isinstance(card, LossCard) and card.reads == "pairs"]
each_loss = pytest.mark.parametrize("card", LOSSES, ids=lambda card: card.name)
NOT_MONOTONE = {"apo-down": "lowers the chosen response as well, by design"}
"""Losses under which a wrongly ranked pair may cost more with a likelier chosen response, and why."""


def load(card: LossCard) -> Any:
    return load_method("loss", card.name)


@pytest.mark.parametrize("golden", GOLDEN, ids=str)
def test_losses_equal_golden_values(golden: Golden) -> None:
    losses = load_method("loss", golden.name, **golden.options)(golden_pairs(**golden.fields))
    expected = torch.tensor(golden.values, dtype=torch.float64)
    torch.testing.assert_close(losses, expected, atol=golden.tolerance, rtol=0)


def test_every_loss_has_golden_values() -> None:
    assert {card.name for card in LOSSES} <= {golden.name for golden in GOLDEN}


@each_loss
def test_a_larger_margin_never_costs_a_wrongly_ranked_pair(card: LossCard) -> None:
    fields = next(golden.fields for golden in GOLDEN if golden.name == card.name)
    base = golden_pairs(**fields).rows(torch.tensor([1]))  # the pair that is ranked wrongly
    better = replace(base, chosen_logps=base.chosen_logps + 0.5)
    assert (load(card)(better) < load(card)(base)) == (card.name not in NOT_MONOTONE)


def test_a_loss_without_its_reference_says_so() -> None:
    pairs = replace(golden_pairs(), ref_chosen_logps=None, ref_rejected_logps=None)
    with pytest.raises(ValueError, match="no reference log-probs"):
        load_method("loss", "dpo")(pairs)


def test_dpo_is_ln_2_at_the_reference() -> None:
    pairs = golden_pairs()
    same = replace(pairs, ref_chosen_logps=pairs.chosen_logps, ref_rejected_logps=pairs.rejected_logps)
    torch.testing.assert_close(
        load_method("loss", "dpo")(same), torch.full((4,), 2.0, dtype=torch.float64).log(), atol=1e-12, rtol=0
    )


@pytest.mark.parametrize(
    ("name", "options", "loss_type", "beta"),
    [
        ("dpo", {"beta": 0.3}, "sigmoid", 0.3),
        ("ipo", {"tau": 0.2, "logps": "average"}, "ipo", 0.2),
    ],
)
def test_losses_equal_trl(name: str, options: Any, loss_type: str, beta: float, tmp_path: Any) -> None:
    """TRL's own trainer computes its loss on its own batch; we compute ours on the same tokens and weights."""
    pytest.importorskip("trl")
    theirs, responses = step_of_trl(tmp_path, loss_type=[loss_type], beta=beta)
    ours = load_method("loss", name, **options)(responses.pairs()).mean()
    assert float(ours) == pytest.approx(theirs, rel=2e-6)


def test_simpo_equals_trl() -> None:
    pytest.importorskip("trl")
    from trl.experimental.cpo import CPOTrainer

    pairs = golden_pairs()
    settings = SimpleNamespace(
        alpha=0.0, loss_type="simpo", beta=2.5, simpo_gamma=0.75, label_smoothing=0.0,
        accelerator=SimpleNamespace(device="cpu"),
    )  # fmt: skip
    averages = pairs.chosen_logps / pairs.chosen_lengths, pairs.rejected_logps / pairs.rejected_lengths
    theirs, chosen, rejected = CPOTrainer.cpo_loss(settings, *averages)  # type: ignore[arg-type]
    ours = load_method("loss", "simpo", beta=2.5, gamma_beta_ratio=0.3)
    torch.testing.assert_close(ours(pairs), theirs, atol=1e-12, rtol=0)
    torch.testing.assert_close(ours.rewards(pairs), (chosen, rejected), atol=1e-12, rtol=0)
