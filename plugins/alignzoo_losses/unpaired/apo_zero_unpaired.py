"""Anchored Preference Optimization, zero form, on individually labelled responses.

    ℓ = 1 − σ( β·a )  of a desirable response,   σ( β·a )  of an undesirable one
    a = log π(y|x) − log π_ref(y|x)

D'Oosterlinck et al., *Anchored Preference Optimization and Contrastive Revisions: Addressing Underspecification in
Alignment*, arXiv 2408.06266, eq. 7, whose two terms are those of a pair; TRL's KTO trainer has the unpaired form as
``apo_zero_unpaired``. Log-probs are sums over response tokens, in nats; β is in 1/nats. It is KTO with λ = 1 and
z₀ = 0, so it reads no mismatched responses and a value does not depend on the others of the step.
"""

from __future__ import annotations

from pydantic import Field

from alignzoo.contract.responses import POLICY, ResponseBatch
from alignzoo.interfaces import PreferenceLoss
from alignzoo.lazy import torch
from alignzoo.plugin import Card, Options, Paper, Verified
from alignzoo_losses.unpaired.labels import labels_of


class APOZeroUnpairedOptions(Options):
    """β, in 1/nats."""

    beta: float = Field(0.1, gt=0, description="strength of the KL constraint to the reference")


class APOZeroUnpaired(PreferenceLoss):
    """Values and rewards ``(N,)`` of the policy's responses; the rewards are β·(log π − log π_ref)."""

    options: APOZeroUnpairedOptions

    def __call__(self, responses: ResponseBatch) -> torch.Tensor:
        return torch.sigmoid(-labels_of(responses) * self.rewards(responses))

    def rewards(self, responses: ResponseBatch) -> torch.Tensor:
        return self.options.beta * responses.of_role(POLICY).log_ratios()


CARD = Card(
    kind="loss",
    name="apo-zero-unpaired",
    target=f"{__name__}:APOZeroUnpaired",
    options=APOZeroUnpairedOptions,
    summary="APO-zero on unpaired responses: KTO without its KL estimate",
    family="losses of single responses",
    addresses=frozenset({"displacement"}),
    formula="1 − σ(β·a) of desirable responses, σ(β·a) of undesirable ones, a = log π − log π_ref",
    paper=Paper(
        title="Anchored Preference Optimization and Contrastive Revisions: Addressing Underspecification in Alignment",
        arxiv="2408.06266",
        authors=("D'Oosterlinck, Karel", "others"),
    ),
    needs=frozenset({"reference", "labels"}),
    reads="responses",
    verified=(
        Verified(against="TRL 1.16", test="test_losses_of_responses_equal_trl_on_its_own_batch"),
        Verified(
            against="the halves of the golden values of apo-zero", test="test_apo_zero_unpaired_adds_up_to_the_pair"
        ),
    ),
)
