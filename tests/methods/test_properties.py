"""What losses of different families have in common, and where one becomes another; on random pairs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from alignzoo import PairBatch, list_methods, load_method
from alignzoo.contract.loss import LossCard
from alignzoo.contract.responses import ResponseBatch
from alignzoo.testing.sample import sample

LOSSES = {card.name: card for card in list_methods("loss") if isinstance(card, LossCard)}
SEEDS = st.integers(0, 10_000)
few = settings(max_examples=15)


@dataclass(frozen=True)
class Spec:
    """A loss with its options."""

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return "-".join([self.name, *(f"{name}={value}" for name, value in self.options.items())])

    def __call__(self, pairs: PairBatch) -> torch.Tensor:
        """Values of the pairs; by prompt if it reads lists."""
        loss, card = load_method("loss", self.name, **self.options), LOSSES[self.name]
        batch = pairs if card.reads == "pairs" else ResponseBatch.of_pairs(pairs)
        if card.batch_coupled:
            loss.observe(batch)
        values: torch.Tensor = loss(batch)
        return values


def as_drawn(pairs: PairBatch) -> PairBatch:
    return pairs


def closer_to_the_policy(pairs: PairBatch) -> PairBatch:
    """Chosen log-probs that have not fallen."""
    return replace(pairs, ref_chosen_logps=torch.minimum(pairs.chosen_logps, pairs.ref_chosen_logps))


@dataclass(frozen=True)
class Limit:
    """``loss`` is ``becomes``, on pairs of that kind."""

    loss: Spec
    becomes: Spec
    on: Callable[[PairBatch], PairBatch] = as_drawn
    tolerance: float = 1e-10

    def __str__(self) -> str:
        return f"{self.loss} is {self.becomes}"


DPO = Spec("dpo", {"beta": 0.3})
SIMPO = Spec("simpo", {"beta": 2.0, "gamma_beta_ratio": 0.4})
LIMITS = [
    Limit(Spec("f-dpo", {"beta": 0.3, "divergence": "reverse-kl"}), DPO),
    Limit(
        Spec("f-dpo", {"beta": 0.3, "divergence": "alpha", "alpha": 1.0}),
        Spec("f-dpo", {"beta": 0.3, "divergence": "forward-kl"}),
        tolerance=1e-6,
    ),
    Limit(Spec("dpop", {"beta": 0.3, "penalty": 50.0}), DPO, on=closer_to_the_policy),
    Limit(Spec("tdpo2", {"beta": 0.3, "alpha": 0.0}), DPO),
    Limit(Spec("pl-dpo", {"beta": 0.3}), DPO),
    Limit(Spec("all-pairs-dpo", {"beta": 0.3}), DPO),
    Limit(Spec("alphapo", {"beta": 2.0, "gamma_beta_ratio": 0.4, "alpha": 0.0}), SIMPO),
    Limit(Spec("tpo-l", {"beta": 2.0, "gamma": 0.8, "alpha": 0.0}), SIMPO),
]
"""Beyond those in the tests of each family."""


@pytest.mark.parametrize("limit", LIMITS, ids=str)
@few
@given(seed=SEEDS)
def test_losses_become_one_another(limit: Limit, seed: int) -> None:
    pairs = limit.on(sample(seed=seed))
    found, expected = limit.loss(pairs), limit.becomes(pairs)
    torch.testing.assert_close(found, expected, atol=limit.tolerance, rtol=limit.tolerance)


LOGISTIC = [
    DPO,
    Spec("dpo-norm"),
    Spec("r-dpo"),
    Spec("odpo", {"offset": "gap"}),
    Spec("f-dpo", {"divergence": "forward-kl"}),
    Spec("f-dpo", {"divergence": "js"}),
    Spec("f-dpo", {"divergence": "alpha", "alpha": 0.3}),
    Spec("chi-po"),
    Spec("squaredpo"),
    Spec("tdpo1"),
    Spec("tdpo2"),
    Spec("mallows-dpo"),
    Spec("simpo", {"gamma_beta_ratio": 0.0}),
    Spec("alphapo", {"gamma_beta_ratio": 0.0}),
    Spec("all-pairs-dpo"),
    Spec("pl-dpo"),
]


@pytest.mark.parametrize("loss", LOGISTIC, ids=str)
@few
@given(seed=SEEDS)
def test_logistic_losses_are_those_of_a_margin_that_the_other_label_turns_round(loss: Spec, seed: int) -> None:
    """−log σ(−m) + log σ(m) = m: so the values under both labels give the margin, and the margin gives the value."""
    pairs = sample(seed=seed)
    values = loss(pairs)
    margin = loss(pairs.swap()) - values
    torch.testing.assert_close(-F.logsigmoid(margin), values, atol=1e-9, rtol=1e-9)


SHIFTED_ON_PURPOSE = [
    Spec("dpo-shift"),
    Spec("dpop", {"penalty": 50.0}),
    Spec("simpo", {"gamma_beta_ratio": 0.5}),
    Spec("odpo", {"offset": "log-gap"}),
]


@pytest.mark.parametrize("loss", SHIFTED_ON_PURPOSE, ids=str)
def test_losses_that_lift_the_chosen_response_do_not(loss: Spec) -> None:
    pairs = sample(seed=5, spread=2.0)
    margin = loss(pairs.swap()) - loss(pairs)
    assert not torch.allclose(-F.logsigmoid(margin), loss(pairs), atol=1e-3)


@few
@given(seed=SEEDS, tau=st.floats(0.05, 5))
def test_ipo_of_both_labels_differs_by_the_margin(seed: int, tau: float) -> None:
    """(h + c)² − (h − c)² = 4ch, with c = 1/(2τ)."""
    pairs = sample(seed=seed)
    a, b = pairs.log_ratios()
    ipo = Spec("ipo", {"tau": tau, "logps": "sum"})
    torch.testing.assert_close(ipo(pairs.swap()) - ipo(pairs), 2 * (a - b) / tau, atol=1e-8, rtol=1e-8)


ABSOLUTE = {
    "aot": "sorts the margins of the policy and of the reference apart",
    "alpha-dpo": "a margin of the policy alone, towards a target from log-ratios",
    "beta-dpo": "deals out its noise by the margins of the reference",
}
"""Losses that read a reference, but not by the log-ratios of responses."""
OF_LOG_RATIOS = [
    name
    for name, card in LOSSES.items()
    if card.needs == {"reference"} and card.reads in ("pairs", "lists") and name not in ABSOLUTE
]
OF_MARGINS = ["dpo", "ipo", "hinge", "exo-pair", "discopop", "gce", "holder-dpo", "ropo", "r-dpo", "pl-dpo", "beta-dpo"]


def moved(pairs: PairBatch, sides: Mapping[str, torch.Tensor]) -> PairBatch:
    """The pairs with that much added to these fields."""
    changed: dict[str, Any] = {name: getattr(pairs, name) + by for name, by in sides.items()}
    return replace(pairs, **changed)


@pytest.mark.parametrize("name", OF_LOG_RATIOS)
@few
@given(seed=SEEDS)
def test_losses_with_a_reference_read_log_ratios_only(name: str, seed: int) -> None:
    """A response that both policy and reference find more likely changes nothing."""
    pairs, draw = sample(seed=seed), torch.Generator().manual_seed(seed)
    chosen, rejected = 5 * torch.randn(2, len(pairs), generator=draw, dtype=torch.float64)
    found = moved(
        pairs,
        {
            "chosen_logps": chosen,
            "ref_chosen_logps": chosen,
            "rejected_logps": rejected,
            "ref_rejected_logps": rejected,
        },
    )
    torch.testing.assert_close(Spec(name)(found), Spec(name)(pairs), atol=1e-7, rtol=1e-7)


@pytest.mark.parametrize("name", OF_MARGINS)
@few
@given(seed=SEEDS)
def test_losses_of_margins_do_not_mind_where_both_responses_are(name: str, seed: int) -> None:
    """Log-ratios of a pair that rise together change nothing, which is how chosen responses can become unlikely."""
    options = {"logps": "sum"} if name == "ipo" else {}
    pairs, draw = sample(seed=seed), torch.Generator().manual_seed(seed)
    both = 5 * torch.randn(len(pairs), generator=draw, dtype=torch.float64)
    found = moved(pairs, {"chosen_logps": both, "rejected_logps": both})
    torch.testing.assert_close(Spec(name, options)(found), Spec(name, options)(pairs), atol=1e-7, rtol=1e-7)


@few
@given(seed=SEEDS, level=st.floats(1.0, 4.0))
def test_target_margins_of_gamma_po_are_shared_out_in_the_order_of_margins(seed: int, level: float) -> None:
    """−log σ(m) gives back m = r − γ: the γ add up to N·γ₀, and a pair with a larger margin gets a larger one."""
    pairs = sample(seed=seed)
    m_w, m_l = pairs.per_token()
    values = Spec("gamma-po", {"beta": 2.0, "gamma_beta_ratio": level / 2, "tau": 1.0})(pairs)
    targets = 2 * (m_w - m_l) + torch.expm1(values).log()
    torch.testing.assert_close(targets.mean(), torch.tensor(level, dtype=torch.float64), atol=1e-5, rtol=0)
    by_margin = targets[torch.argsort(m_w - m_l)]
    assert (by_margin.diff() >= -1e-9).all()
