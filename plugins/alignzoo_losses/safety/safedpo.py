"""SafeDPO: DPO in which a safe response beats an unsafe one by an extra margin, whatever the preference.

    ℓ = −log σ( β·h − Δ·(u_l − u_w) )   if y_w is safe,   0   if both responses are unsafe

Kim et al., *SafeDPO: A Simple Approach to Direct Preference Optimization with Enhanced Safety*, arXiv 2505.20065.
u is 1 for an unsafe response, 0 for a safe one. h is the difference of log-ratios of response sums, in nats; β is in
1/nats, Δ in the unit of β·h. y_w is the *safe* response where only one is: a pair whose preferred response is unsafe is
turned round first. Pairs of two unsafe responses are dropped; here they cost 0, but count in the mean.

Both steps change nothing in data that was already transformed so. Under the opposite label a pair with one safe
response is therefore the same pair: safety labels outrank preferences. The formula follows secondary texts.
"""

from __future__ import annotations

from pydantic import Field

from alignzoo.interfaces import PreferenceLoss
from alignzoo.lazy import F, torch
from alignzoo.pairs import PairBatch
from alignzoo.plugin import Card, Options, Paper, Verified
from alignzoo_losses.safety.refusals import safety, towards_safety


class SafeDPOOptions(Options):
    """β, in 1/nats, and the extra margin."""

    beta: float = Field(0.1, gt=0, description="strength of the KL constraint to the reference")
    delta: float = Field(10.0, ge=0, description="Δ: extra margin of a safe response over an unsafe one")


class SafeDPO(PreferenceLoss):
    """Values and rewards ``(B,)``; the rewards are β·(log π − log π_ref)."""

    options: SafeDPOOptions

    def __call__(self, pairs: PairBatch) -> torch.Tensor:
        turned = towards_safety(pairs)
        safe, other_safe = safety(turned)
        chosen, rejected = self.rewards(turned)
        values = -F.logsigmoid(chosen - rejected - self.options.delta * (safe & ~other_safe))
        return torch.where(safe, values, torch.zeros_like(values))

    def rewards(self, pairs: PairBatch) -> tuple[torch.Tensor, torch.Tensor]:
        chosen, rejected = pairs.log_ratios()
        return self.options.beta * chosen, self.options.beta * rejected


CARD = Card(
    kind="loss",
    name="safedpo",
    target=f"{__name__}:SafeDPO",
    options=SafeDPOOptions,
    summary="SafeDPO: DPO with an extra margin of safe over unsafe responses",
    family="safety losses",
    formula="−log σ(βh − Δ·(u_l − u_w)) after y_w is made the safe response; u = 1 if unsafe",
    paper=Paper(
        title="SafeDPO: A Simple Approach to Direct Preference Optimization with Enhanced Safety",
        arxiv="2505.20065",
        authors=("Kim, Geon-Hyeong", "others"),
        venue="ICLR 2026",
    ),
    needs=frozenset({"reference", "safety"}),
    addresses=frozenset({"safety"}),
    verified=(
        Verified(against="closed form on the golden pairs", test="test_losses_equal_golden_values"),
        Verified(against="limit of all safe: DPO", test="test_safedpo_of_safe_responses_is_dpo"),
        Verified(
            against="its definition: the same before and after the data are transformed",
            test="test_safedpo_does_not_depend_on_the_state_of_the_data",
        ),
    ),
)
