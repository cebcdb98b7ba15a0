"""Dr. DPO: distributionally robust aggregation over the pairs of a step.

    L = −β′ · log (1/N) Σ_i exp(−ℓ_i / β′)

Wu et al., *Towards Robust Alignment of Language Models: Distributionally Robustifying Direct Preference
Optimization*, arXiv 2407.07880, eq. 12. Its gradient weights pair i by softmax(−ℓ/β′)_i: high-loss pairs (noisy
labels) count less; β′ → ∞ gives the mean. N is the whole optimizer step over all ranks, so the value does not depend
on how the step is split (the authors' code aggregates per rank). ``logsumexp − log N`` stays finite where
``log(mean(exp(·)))`` overflows. β′ has the unit of the loss.
"""

from __future__ import annotations

import math

from pydantic import Field

from alignzoo.interfaces import RobustWrapper
from alignzoo.lazy import torch
from alignzoo.plugin import Card, Composition, Options, Paper, Verified

PAPER = Paper(
    title="Towards Robust Alignment of Language Models: Distributionally Robustifying Direct Preference Optimization",
    arxiv="2407.07880",
    authors=("Wu, Junkang", "others"),
    venue="ICLR 2025",
)


class DrDPOOptions(Options):
    """β′, in the unit of the loss."""

    beta_prime: float = Field(1.0, gt=0, description="temperature: smaller values downweight high-loss pairs more")


class DrDPO(RobustWrapper):
    """Aggregates the step's values ``(N,)``; the weights are the closed form of the objective's gradient."""

    options: DrDPOOptions

    def objective(self, losses: torch.Tensor) -> torch.Tensor:
        scaled = -losses / self.options.beta_prime
        return -self.options.beta_prime * (torch.logsumexp(scaled, 0) - math.log(len(losses)))

    def weights(self, losses: torch.Tensor) -> torch.Tensor:
        return torch.softmax(-losses.detach() / self.options.beta_prime, 0)


CARD = Card(
    kind="robust",
    name="drdpo",
    target="alignzoo_robust.drdpo:DrDPO",
    options=DrDPOOptions,
    summary="Dr. DPO: log-mean-exp over the step, which downweights high losses",
    formula="−β′·log mean_i exp(−ℓ_i/β′), gradient weights softmax(−ℓ/β′)",
    paper=PAPER,
    family="label noise",
    addresses=frozenset({"label-noise"}),
    batch_coupled=True,
    aggregates=True,
    verified=(
        Verified(against="the authors' junkangwu/Dr_DPO@3c0678f", test="test_drdpo_equals_the_authors"),
        Verified(against="golden values", test="test_drdpo_equals_golden_value"),
        Verified(against="autograd in float64", test="test_drdpo_weights_are_the_gradient"),
    ),
)

COMPOSITION = Composition(
    name="drdpo",
    summary="Dr. DPO as published: DPO under drdpo",
    paper=PAPER,
    family="logistic losses",
    addresses=frozenset({"label-noise"}),
    loss="dpo",
    robust=("drdpo",),
)
