"""Conservative DPO's label smoothing, around any loss that is defined under the opposite label.

    ℓ' = (1 − ε)·ℓ(w, l) + ε·ℓ(l, w)

Mitchell, *A note on DPO with noisy preferences & relationship to IPO* (2023). ε is the share of wrong labels that one
expects. Around DPO the minimum is at βh = log((1 − ε)/ε) instead of infinity: margins no longer grow without bound.
``--loss cdpo`` is ``--loss dpo --robust cdpo``.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

from alignzoo.interfaces import RobustWrapper, Values
from alignzoo.lazy import torch
from alignzoo.plugin import Card, Composition, Options, Paper, Verified

PAPER = Paper(
    title="A note on DPO with noisy preferences & relationship to IPO",
    authors=("Mitchell, Eric",),
    published=2023,
    url="https://ericmitchell.ai/cdpo.pdf",
)


class CDPOOptions(Options):
    """ε, a share of pairs."""

    epsilon: float = Field(
        0.1, ge=0, lt=0.5, description="expected share of wrong labels", json_schema_extra={"search": [0.0, 0.4]}
    )


class CDPO(RobustWrapper):
    """Mixes each value ``(N,)`` with the value under the opposite label."""

    options: CDPOOptions

    def per_pair(self, loss: Values, pairs: Any) -> torch.Tensor:
        epsilon = self.options.epsilon
        return (1 - epsilon) * loss(pairs) + epsilon * loss(pairs.swap())


CARD = Card(
    kind="robust",
    name="cdpo",
    target=f"{__name__}:CDPO",
    options=CDPOOptions,
    summary="Label smoothing: a share of each pair counts for the opposite label",
    formula="(1 − ε)·ℓ(w, l) + ε·ℓ(l, w)",
    paper=PAPER,
    family="label noise",
    addresses=frozenset({"label-noise", "overoptimisation"}),
    aliases=("label-smoothing",),
    needs=frozenset({"swap"}),
    relabels=True,
    around=frozenset({"pairs", "responses", "lists"}),
    verified=(
        Verified(
            against="the authors' eric-mitchell/direct-preference-optimization@f8b8c0f",
            test="test_cdpo_equals_the_authors",
        ),
        Verified(against="golden values", test="test_label_noise_wrappers_equal_golden_values"),
        Verified(against="its minimum βh = log((1 − ε)/ε)", test="test_cdpo_is_least_at_the_log_odds_of_the_labels"),
    ),
)

COMPOSITION = Composition(
    name="cdpo",
    summary="Conservative DPO: DPO with smoothed labels",
    paper=PAPER,
    family="logistic losses",
    addresses=frozenset({"label-noise", "overoptimisation"}),
    loss="dpo",
    robust=("cdpo",),
)
