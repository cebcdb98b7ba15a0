"""β-DPO: one β for each step, from the margins of its pairs, after outliers are dropped.

    ℓ = −log σ( β'·h ) of the pairs kept,     β' = max( 10⁻³, β₀·[ 1 + α·(mean of the kept h − μ) ] )
    h = (log π(y_w|x) − log π_ref(y_w|x)) − (log π(y_l|x) − log π_ref(y_l|x))

Wu et al., *β-DPO: Direct Preference Optimization with Dynamic β*, arXiv 2407.08639. Log-probs are sums over response
tokens, in nats; β is in 1/nats, α too. Of a step's N pairs, those of all ranks, ⌊(1 − ρ)·N⌋ are drawn without
replacement with probability ∝ exp(−½·((h − μ)/s)²); μ and s are moving averages of the mean and the standard deviation
of h, updated with the step first. β' passes no gradient.

What is drawn is fixed once per step, before its first evaluation: β', and which pairs are dropped. So every pass of a
geometry controller, micro-batch and rank has the same β' and the same pairs. Noise is dealt out by the order of the
reference's log-probs, which are constants: neither the order of pairs nor the number of ranks matters. The values of
dropped pairs are 0, those of the others are scaled up so that the mean over all is the mean over those kept. Pairs that
were not in the step (held-out ones) are all kept.

Deviation: the moving averages are corrected for their start at 0, where the authors' s is a tenth of the standard
deviation at the first step.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

from alignzoo.interfaces import PreferenceLoss
from alignzoo.lazy import F, torch
from alignzoo.pairs import PairBatch
from alignzoo.plugin import Card, Options, Paper, Verified
from alignzoo_losses.adaptive.running import RunningMoments

LEAST_BETA = 1e-3


class BetaDPOOptions(Options):
    """β₀ and α, in 1/nats, and ρ."""

    beta: float = Field(0.1, gt=0, description="β₀: β of a step with average margins")
    alpha: float = Field(
        0.6, ge=0, description="how much β follows the margins of the step", json_schema_extra={"search": [0.1, 2.0]}
    )
    dropped: float = Field(
        0.2,
        ge=0,
        lt=1,
        description="ρ: share of the step's pairs that are dropped as outliers",
        json_schema_extra={"search": [0.0, 0.5]},
    )


class BetaDPO(PreferenceLoss):
    """Values and rewards ``(B,)``; the rewards are β₀·(log π − log π_ref)."""

    options: BetaDPOOptions

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self._moments = RunningMoments()
        self._beta: Any = self.options.beta
        self._dropped: torch.Tensor | None = None

    def __call__(self, pairs: PairBatch) -> torch.Tensor:
        chosen, rejected = pairs.log_ratios()
        margins = chosen - rejected
        beta = torch.as_tensor(self._beta).to(margins)  # a held-out batch is on the host, wherever the steps were
        values = -F.logsigmoid(beta * margins)
        kept = self.kept(pairs)
        counted = kept.sum().clamp(min=1).to(values.dtype)
        return torch.where(kept, values * (len(pairs) / counted), 0.0)

    def kept(self, pairs: PairBatch) -> torch.Tensor:
        """``(B,)``: whether a pair counts, under either label."""
        key = _of_reference(pairs).sort(1).values
        if self._dropped is None:
            return torch.ones_like(key[:, 0], dtype=torch.bool)
        return (key[:, None] != self._dropped.to(key.device)).any(2).all(1)

    def rewards(self, pairs: PairBatch) -> tuple[torch.Tensor, torch.Tensor]:
        chosen, rejected = pairs.log_ratios()
        return self.options.beta * chosen, self.options.beta * rejected

    def observe(self, pairs: PairBatch) -> None:
        """Update μ and s, and draw the pairs and β' of the step."""
        chosen, rejected = pairs.log_ratios()
        margins, key = (chosen - rejected).detach(), _of_reference(pairs)
        self._moments.update(margins)
        # The largest of log weight + Gumbel noise are a draw without replacement.
        odds = -0.5 * self._moments.standardised(margins) ** 2 + self._noise(key)
        count = max(1, int((1 - self.options.dropped) * len(pairs)))
        order = odds.argsort(descending=True, stable=True)
        self._dropped = key[order[count:]].sort(1).values
        ahead = margins[order[:count]].mean() - self._moments.mean
        self._beta = (self.options.beta * (1 + self.options.alpha * ahead)).clamp(min=LEAST_BETA)

    def metrics(self, pairs: PairBatch) -> dict[str, Any]:
        return {"beta": self._beta, "kept": self.kept(pairs).double().mean()}

    def _noise(self, key: torch.Tensor) -> torch.Tensor:
        """Gumbel noise ``(B,)`` of the step, the same wherever a pair stands in the batch."""
        draw = torch.Generator().manual_seed(self._moments.steps)
        uniform = torch.rand(len(key), generator=draw, dtype=torch.float64)
        gumbel = -(-uniform.clamp(min=1e-12).log()).log()
        by_rejected = key[:, 1].argsort(stable=True)
        order = by_rejected[key[by_rejected, 0].argsort(stable=True)]
        return gumbel.to(key)[order.argsort()]

    def state_dict(self) -> dict[str, Any]:
        state = {**self._moments.state_dict(), "beta": self._beta}
        return state if self._dropped is None else {**state, "dropped": self._dropped}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._moments.load_state_dict(state)
        self._beta, self._dropped = state["beta"], state.get("dropped")


def _of_reference(pairs: PairBatch) -> torch.Tensor:
    """``(B, 2)``: the reference's log-probs, by which a pair is known in every pass of a step.

    Raises:
        ValueError: there is no reference.
    """
    if pairs.ref_chosen_logps is None or pairs.ref_rejected_logps is None:
        raise ValueError("no reference log-probs: the method's card must declare needs={'reference'}")
    return torch.stack([pairs.ref_chosen_logps, pairs.ref_rejected_logps], 1)


CARD = Card(
    kind="loss",
    name="beta-dpo",
    target=f"{__name__}:BetaDPO",
    options=BetaDPOOptions,
    summary="Beta-DPO: DPO with β from the margins of the step, without outliers",
    family="adaptive losses",
    formula="−log σ(β'·h) of the pairs kept, β' = β₀·[1 + α·(mean of the kept h − μ)]",
    paper=Paper(
        title="β-DPO: Direct Preference Optimization with Dynamic β",
        arxiv="2407.08639",
        authors=(
            "Wu, Junkang",
            "Xie, Yuexiang",
            "Yang, Zhengyi",
            "Wu, Jiancan",
            "Gao, Jinyang",
            "Ding, Bolin",
            "Wang, Xiang",
            "He, Xiangnan",
        ),
        venue="NeurIPS 2024",
    ),
    needs=frozenset({"reference"}),
    addresses=frozenset({"label-noise"}),
    anchorable=False,
    batch_coupled=True,
    verified=(
        Verified(against="the authors' junkangwu/beta-DPO@1629047", test="test_beta_dpo_equals_the_authors"),
        Verified(against="torch.multinomial's frequencies", test="test_beta_dpo_draws_like_multinomial"),
        Verified(against="dpo where ρ = α = 0", test="test_beta_dpo_without_its_parts_is_dpo"),
        Verified(against="golden values", test="test_losses_equal_golden_values"),
    ),
)
