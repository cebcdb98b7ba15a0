"""Defaults are the published ones, and rewards are those of the formula at these defaults, on the golden pairs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from golden import GOLDEN, golden_pairs, golden_responses

from alignzoo import PairBatch, list_methods, load_method
from alignzoo.contract.card import Card
from alignzoo.contract.loss import LossCard

PUBLISHED: dict[str, dict[str, Any]] = {
    "loss:alpha-dpo": {"beta": 10.0, "gamma_beta_ratio": 0.4, "alpha": 0.2},
    "loss:alphapo": {"beta": 2.5, "gamma_beta_ratio": 0.04, "alpha": 0.25},
    "loss:beta-dpo": {"beta": 0.1, "alpha": 0.6, "dropped": 0.2},
    "loss:bfpo": {"b1": 3.0, "alpha": 0.5},
    "loss:constrained-sft": {"beta": 0.1, "early": 5, "early_factor": 20.0, "first_factor": 5.0},
    "loss:cpo": {"beta": 0.1, "alpha": 1.0},
    "loss:discopop": {"beta": 0.05, "tau": 0.05},
    "loss:door": {"alpha": 0.2, "beta": 0.5},
    "loss:dpo-shift": {"rejected_weight": 0.95},
    "loss:dpop": {"beta": 0.3, "penalty": 50.0},
    "loss:exo-pair": {"beta": 0.1, "epsilon": 1e-3},
    "loss:gamma-po": {"form": "simpo", "beta": 10.0, "gamma_beta_ratio": 0.4, "tau": 10.0},
    "loss:gce": {"q": 0.7},
    "loss:holder-dpo": {"gamma": 2.0},
    "loss:ipo": {"tau": 0.1, "logps": "average"},
    "loss:kto": {"beta": 0.1, "desirable_weight": 1.0, "undesirable_weight": 1.0},
    "loss:mallows-dpo": {"dispersion_scale": 0.29},
    "loss:mallows-ipo": {"dispersion_scale": 0.29},
    "loss:odpo": {"alpha": 1.0, "offset": "log-gap"},
    "loss:orpo": {"odds_weight": 0.1},
    "loss:pro": {"sft_weight": 0.05},
    "loss:r-dpo": {"beta": 0.1, "alpha": 0.1},
    "loss:ropo": {"beta": 0.1, "alpha": 14.0},
    "loss:safedpo": {"beta": 0.1, "delta": 10.0},
    "loss:simpo": {"beta": 2.0, "gamma_beta_ratio": 0.25},
    "loss:slic": {"delta": 1.0, "nll_weight": 0.1},
    "loss:tdpo2": {"beta": 0.1, "alpha": 0.5},
    "loss:tpo": {"beta": 0.01, "alpha": 1.0},
    "loss:tpo-l": {"beta": 0.01, "alpha": 1.0, "gamma": 0.5},
    "loss:w-door": {"tau": 5.0, "sign": "paper"},
    "robust:drdpo": {"beta_prime": 1.0},
    "robust:dro-calibrated": {"temperature": 1.0},
    "robust:group-dro": {"eta": 0.01},
    "robust:kldpo": {"tau": 1.0, "cap": 10.0},
    "robust:re-po": {"eta": 0.9, "alpha": 0.1},
    "robust:soft-label": {"k": 10.0, "temperature": 1.0},
    "robust:wdpo": {"rho": 0.01},
    "robust:wdpo-winsor": {"rho_f": 0.15, "tau_f": 1.0, "quantile": 0.7, "rho_max": 0.5, "early": 0.15, "start": 0.3},
    "robust:wpo": {"cap": True},
    "aggregation:humanline": {"log_epsilon_p": -1.0, "log_epsilon_r": 1.5},
    "aggregation:ld": {"alpha": 0.5},
    "aggregation:otpo": {"epsilon": 0.1, "tau": 0.2},
    "aggregation:tis-dpo": {"transform": "rank", "low": 0.7, "high": 1.3, "clip": 1.5},
    "selector:harmful-prefix": {"p": 0.5, "most": 100},
    "selector:perpcorrect": {"rounds": 6, "share": 0.02},
    "geometry:tr-dpo": {"alpha": 0.6, "interval": 512},
}
"""Those of the papers or of the authors' code; of losses with β alone they are in :data:`REWARDS`."""

KINDS = ("loss", "robust", "aggregation", "selector", "geometry")
CARDS = {f"{kind}:{card.name}": card for kind in KINDS for card in list_methods(kind) if isinstance(card, Card)}


@pytest.mark.parametrize("name", PUBLISHED)
def test_defaults_are_the_published_ones(name: str) -> None:
    fields = CARDS[name].options.model_fields
    assert {option: fields[option].default for option in PUBLISHED[name]} == PUBLISHED[name]


Rewards = Callable[[PairBatch], tuple[torch.Tensor, torch.Tensor]]
A, B = (torch.tensor(values, dtype=torch.float64) for values in ((1, -1.5, 0.5, 2.5), (-1, 1.5, -0.5, -3)))
"""The log-ratios of the golden pairs."""


def ratios(beta: float) -> Rewards:
    return lambda pairs: (beta * A, beta * B)


def linked(beta: float, link: Callable[[torch.Tensor], torch.Tensor]) -> Rewards:
    return lambda pairs: (beta * link(A), beta * link(B))


def ratios_per_token(beta: float) -> Rewards:
    return lambda pairs: (beta * A / pairs.chosen_lengths, beta * B / pairs.rejected_lengths)


def sums(beta: float) -> Rewards:
    return lambda pairs: (beta * pairs.chosen_logps, beta * pairs.rejected_logps)


def averages(beta: float) -> Rewards:
    return lambda pairs: (
        beta * pairs.chosen_logps / pairs.chosen_lengths,
        beta * pairs.rejected_logps / pairs.rejected_lengths,
    )


def with_lengths(pairs: PairBatch) -> tuple[torch.Tensor, torch.Tensor]:
    return 0.1 * (A + pairs.chosen_lengths), 0.1 * (B + pairs.rejected_lengths)


def with_kls(pairs: PairBatch) -> tuple[torch.Tensor, torch.Tensor]:
    assert pairs.chosen_kls is not None
    assert pairs.rejected_kls is not None
    return 0.1 * (A + pairs.chosen_kls), 0.1 * (B + pairs.rejected_kls)


def by_dispersion(pairs: PairBatch) -> tuple[torch.Tensor, torch.Tensor]:
    """H of the golden pairs is (0.2, 0.35, 0.05, 0.6)."""
    phi = -0.29 * torch.tensor([0.2, 0.35, 0.05, 0.6], dtype=torch.float64).log()
    return 0.1 * phi * A, 0.1 * phi * B


def powers(pairs: PairBatch) -> tuple[torch.Tensor, torch.Tensor]:
    chosen, rejected = averages(1.0)(pairs)
    return 10 * (1 - (-0.25 * chosen).exp()), 10 * (1 - (-0.25 * rejected).exp())


REWARDS: dict[str, Rewards] = {
    **dict.fromkeys(("dpo", "dpo-shift", "odpo", "beta-dpo", "safedpo", "bco-pair", "kto-pair"), ratios(0.1)),
    **dict.fromkeys(("apo-zero", "apo-down", "gce", "holder-dpo", "ropo", "sympo", "exo-pair"), ratios(0.1)),
    **dict.fromkeys(("nca-pair", "aot", "aot-unpaired", "bfpo"), ratios(0.01)),
    **dict.fromkeys(("cal-dpo", "sppo-hard"), ratios(0.001)),
    **dict.fromkeys(("discopop", "hinge"), ratios(0.05)),
    **dict.fromkeys(("door", "w-door"), ratios(0.5)),
    "dpop": ratios(0.3),
    "rebel": ratios(1.0),
    "f-dpo": linked(0.1, lambda x: (2 / (1 + (-x).exp())).log()),
    "chi-po": linked(0.1, lambda x: x.exp() + x),
    "square-chi-po": linked(0.1, lambda x: x.exp() + x),
    "squaredpo": linked(0.1, lambda x: x / x.exp()),
    "dpo-norm": ratios_per_token(5.0),
    "ipo": ratios_per_token(0.1),
    "cpo": sums(0.1),
    "slic": sums(1.0),
    "simpo": averages(2.0),
    "alpha-dpo": averages(10.0),
    "gamma-po": averages(10.0),
    "orpo": averages(0.1),
    "alphapo": powers,
    "r-dpo": with_lengths,
    "tdpo1": with_kls,
    "tdpo2": with_kls,
    "mallows-dpo": by_dispersion,
    "mallows-ipo": by_dispersion,
}
"""At the default options."""


@pytest.mark.parametrize("name", [c.name for c in CARDS.values() if isinstance(c, LossCard) and c.reads == "pairs"])
def test_rewards_are_those_of_the_formula_at_the_default_beta(name: str) -> None:
    pairs = golden_pairs(**next(golden.fields for golden in GOLDEN if golden.name == name))
    for found, expected in zip(load_method("loss", name).rewards(pairs), REWARDS[name](pairs), strict=True):
        torch.testing.assert_close(found, expected, atol=1e-12, rtol=1e-12)


OF_RESPONSES = {
    **dict.fromkeys(("kto", "bco", "apo-zero-unpaired", "npo", "pl-dpo", "all-pairs-dpo", "lipo-lambda"), ratios(0.1)),
    "constrained-sft": ratios(1.0),
    "sft": sums(1.0),
    "tpo": sums(0.01),
    "tpo-l": averages(0.01),
    "pro": averages(1.0),
}


@pytest.mark.parametrize("name", [c.name for c in CARDS.values() if isinstance(c, LossCard) and c.reads != "pairs"])
def test_rewards_of_responses_are_those_of_the_formula_at_the_default_beta(name: str) -> None:
    found = load_method("loss", name).rewards(golden_responses())
    for side, expected in zip((found[::2], found[1::2]), OF_RESPONSES[name](golden_pairs()), strict=True):
        torch.testing.assert_close(side, expected, atol=1e-12, rtol=1e-12)
