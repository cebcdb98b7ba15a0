"""DPO-PRO: the worst label confidence near a soft label.

    d = √(ρ·q·(1 − q)),   p* = min(1, q + d) if ℓ(w, l) ≥ ℓ(l, w) else max(0, q − d)
    ℓ' = p*·ℓ(w, l) + (1 − p*)·ℓ(l, w)

*Lightweight Robust Direct Preference Optimization*, arXiv 2510.23590 (also 2509.02709): a χ² ball of radius ρ around
each pair's label alone, so it needs no other pair. q is the probability that the chosen response is better:
``labels="reward"`` takes σ(k·(s_w − s_l)/T) from the run's reward, as ``soft-label`` does (ρ = 0 is that wrapper), and
``"smoothed"`` takes 1 − ε. Under hard labels (q = 0 or 1) d = 0 and nothing would change. p* is constant in the
gradient, which is exact by the envelope theorem. Defined around any loss with a value under the opposite label.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from alignzoo.interfaces import RobustWrapper, Values
from alignzoo.lazy import torch
from alignzoo.plugin import Card, Need, Options, Paper, Verified


class DPOPROOptions(Options):
    """ρ, and where the soft labels come from; the temperature has the unit of the scores."""

    rho: float = Field(0.1, ge=0, le=4, description="radius of the χ² ball around a label; 0 trusts it")
    labels: Literal["reward", "smoothed"] = Field(
        "reward", description="soft labels: from scores, or 1 − epsilon", json_schema_extra={"search": []}
    )
    epsilon: float = Field(
        0.1,
        gt=0,
        lt=0.5,
        description="expected share of wrong labels (labels=smoothed)",
        json_schema_extra={"search": []},
    )
    k: float = Field(10.0, gt=0, description="slope of the soft label in the score difference (labels=reward)")
    temperature: float = Field(
        1.0, gt=0, description="divides the score difference; same unit as the scores", json_schema_extra={"search": []}
    )

    def needs(self) -> frozenset[Need]:
        return frozenset({"reward"}) if self.labels == "reward" else frozenset()


class DPOPRO(RobustWrapper):
    """Mixes each pair's value ``(B,)`` with that under the opposite label, at the worst label confidence."""

    options: DPOPROOptions

    def soft_labels(self, chosen: torch.Tensor, rejected: torch.Tensor) -> torch.Tensor | None:
        """q ``(N,)`` from scores ``(N,)``, if that is where it comes from."""
        if self.options.labels == "smoothed":
            return None
        return torch.sigmoid(self.options.k * (chosen - rejected) / self.options.temperature)

    def confidence(self, pairs: Any) -> torch.Tensor:
        """q ``(B,)``.

        Raises:
            ValueError: the pairs have no scores.
        """
        if self.options.labels == "smoothed":
            return torch.full_like(pairs.chosen_lengths, 1 - self.options.epsilon)
        if pairs.chosen_scores is None or pairs.rejected_scores is None:
            raise ValueError("no scores: the method's options must declare the need 'reward'")
        q = self.soft_labels(pairs.chosen_scores, pairs.rejected_scores)
        assert q is not None
        return q

    def per_pair(self, loss: Values, pairs: Any) -> torch.Tensor:
        given, opposite = loss(pairs), loss(pairs.swap())
        q = self.confidence(pairs).to(given.dtype)
        width = (self.options.rho * q * (1 - q)).sqrt()
        worse = given.detach() >= opposite.detach()
        worst = torch.where(worse, (q + width).clamp(max=1), (q - width).clamp(min=0))
        return worst * given + (1 - worst) * opposite

    def metrics(self, losses: torch.Tensor, pairs: Any) -> dict[str, torch.Tensor]:
        """The mean of q, and of how far a label may move."""
        q = self.confidence(pairs)
        return {"soft_label_mean": q.mean(), "width_mean": (self.options.rho * q * (1 - q)).sqrt().mean()}


CARD = Card(
    kind="robust",
    name="dpo-pro",
    target=f"{__name__}:DPOPRO",
    options=DPOPROOptions,
    summary="DPO-PRO: the worst label confidence within a ball around a soft label",
    formula="p*·ℓ(w, l) + (1 − p*)·ℓ(l, w), p* = q ± √(ρ·q(1 − q)), the worse one",
    paper=Paper(
        title="Lightweight Robust Direct Preference Optimization",
        arxiv="2510.23590",
        authors=("Kim, Cheol Woo", "Verma, Shresth", "Tec, Mauricio", "Tambe, Milind"),
    ),
    family="label noise",
    addresses=frozenset({"label-noise"}),
    needs=frozenset({"swap"}),
    relabels=True,
    around=frozenset({"pairs"}),
    verified=(
        Verified(against="golden values", test="test_dpo_pro_equals_golden_values"),
        Verified(against="a grid search of the ball's worst label", test="test_dpo_pro_is_the_worst_label"),
        Verified(against="its limit ρ = 0: soft-label", test="test_dpo_pro_without_a_ball_is_soft_label"),
    ),
)
