"""AlphaPO: SimPO under a power of the length-normalised likelihood instead of its logarithm.

    ℓ = −log σ( β·[ r(m_w) − r(m_l) ] − γ ),     r(m) = ( 1 − e^{−αm} )/α,     m = log π(y|x)/|y|,     γ = β·(γ/β)

Gupta et al., *AlphaPO: Reward Shape Matters for LLM Alignment*, arXiv 2501.03884. α → 0 is SimPO; α > 0 flattens the
reward of likely responses and steepens that of unlikely ones, α < 0 the reverse. m is the average log-prob of the
response's tokens; another ``--aggregation`` replaces the average. As for SimPO the target margin is the *ratio* γ/β;
TRL's ``simpo_gamma`` is the absolute γ (0.1 in its example). r is evaluated with expm1, and beyond 40 nats, −αm > 40,
it continues along its tangent; TRL raises probabilities to −α.
"""

from __future__ import annotations

from pydantic import Field

from alignzoo.interfaces import PreferenceLoss
from alignzoo.lazy import F, torch
from alignzoo.pairs import PairBatch
from alignzoo.plugin import Card, Options, Paper, Verified
from alignzoo_losses.divergence.links import alpha_divergence


class AlphaPOOptions(Options):
    """β, γ/β and the shape of the reward."""

    beta: float = Field(2.5, gt=0, description="scale of the reward")
    gamma_beta_ratio: float = Field(0.04, ge=0, description="target reward margin γ as a multiple of beta")
    alpha: float = Field(0.25, description="shape of the reward; 0 is SimPO", json_schema_extra={"search": [-1.0, 1.0]})


class AlphaPO(PreferenceLoss):
    """Values and rewards ``(B,)``; the rewards are β·r(m)."""

    options: AlphaPOOptions

    def __call__(self, pairs: PairBatch) -> torch.Tensor:
        chosen, rejected = self.rewards(pairs)
        gamma = self.options.beta * self.options.gamma_beta_ratio
        return -F.logsigmoid(chosen - rejected - gamma)

    def rewards(self, pairs: PairBatch) -> tuple[torch.Tensor, torch.Tensor]:
        chosen, rejected = pairs.per_token()
        return self.options.beta * self._shaped(chosen), self.options.beta * self._shaped(rejected)

    def _shaped(self, m: torch.Tensor) -> torch.Tensor:
        return m if self.options.alpha == 0 else alpha_divergence(m, self.options.alpha)


CARD = Card(
    kind="loss",
    name="alphapo",
    target=f"{__name__}:AlphaPO",
    options=AlphaPOOptions,
    summary="AlphaPO: SimPO with a tunable shape of the reward",
    family="reference-free losses",
    formula="−log σ(β·(r(m_w) − r(m_l)) − γ), r(m) = (1 − e^{−αm})/α, m = log π/|y|",
    paper=Paper(
        title="AlphaPO: Reward Shape Matters for LLM Alignment",
        arxiv="2501.03884",
        authors=(
            "Gupta, Aman",
            "Tang, Shao",
            "Song, Qingquan",
            "Zhu, Sirou",
            "Hong, Jiwoo",
            "Saha, Ankan",
            "Gupta, Viral",
            "Lee, Noah",
            "Kim, Eunki",
            "Zhu, Siyu",
            "Agrawal, Parag",
            "Pillai, Natesh",
            "Keerthi, S. Sathiya",
        ),
        venue="ICML 2025",
    ),
    addresses=frozenset({"displacement", "overoptimisation"}),
    aggregation="mean",
    under=frozenset({"mean"}),
    verified=(
        Verified(against="TRL 1.16", test="test_losses_without_reference_equal_trl_on_its_own_batch"),
        Verified(against="golden values", test="test_losses_equal_golden_values"),
        Verified(against="limit α → 0: SimPO", test="test_alphapo_of_small_alpha_is_simpo"),
    ),
)
