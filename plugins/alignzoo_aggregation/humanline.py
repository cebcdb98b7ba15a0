"""Humanline clipping: no token's log-ratio to the reference counts beyond two bounds.

    Σ_t [log π_ref(y_t) + clamp(log π(y_t) − log π_ref(y_t), log ε_P, log ε_R)]

so that a loss of log-ratios reads Σ_t clamp(log π/π_ref, log ε_P, log ε_R); clamped tokens have no gradient. Given the
reference's own log-probs it returns their sum, because log ε_P ≤ 0 ≤ log ε_R: one formula for both models. Liu et al.,
*Humanline: Online Alignment as Perceptual Loss*, arXiv 2509.24207; defaults are those of the authors' HALOs. Their
other half, a reference that is replaced by the policy every few steps, is ``--geometry tr-dpo`` with ``alpha`` 1.
"""

from __future__ import annotations

from pydantic import Field

from alignzoo.contract.responses import ResponseBatch
from alignzoo.interfaces import Aggregation
from alignzoo.lazy import torch
from alignzoo.plugin import AggregationCard, Options, Paper, Verified


class HumanlineOptions(Options):
    """Bounds of a token's log-ratio, in nats."""

    log_epsilon_p: float = Field(
        -1.0,
        le=0,
        description="least log-ratio of a token, log ε_P",
        examples=[-0.2],
        json_schema_extra={"search": [-3.0, -0.1]},
    )
    log_epsilon_r: float = Field(
        1.5,
        ge=0,
        description="greatest log-ratio of a token, log ε_R",
        examples=[0.2],
        json_schema_extra={"search": [0.1, 3.0]},
    )


class Humanline(Aggregation):
    """Sums ``(R,)`` of log-probs that stay near those of the reference, token by token."""

    options: HumanlineOptions

    def __call__(self, logps: torch.Tensor, token_logps: torch.Tensor | None, responses: ResponseBatch) -> torch.Tensor:
        reference = responses.ref_token_logps
        if token_logps is None or reference is None:
            raise ValueError("no log-probs of tokens: the card must declare needs={'reference', 'token-logps'}")
        ratios = (token_logps - reference).clamp(self.options.log_epsilon_p, self.options.log_epsilon_r)
        return (reference + ratios).sum(-1)


CARD = AggregationCard(
    name="humanline",
    target=f"{__name__}:Humanline",
    options=HumanlineOptions,
    summary="Humanline: log-ratios of tokens to the reference clamped to bounds",
    family="token weights",
    formula="Σ_t [log π_ref + clamp(log π − log π_ref, log ε_P, log ε_R)]",
    paper=Paper(
        title="Humanline: Online Alignment as Perceptual Loss",
        arxiv="2509.24207",
        authors=("Liu, Sijia", "Muennighoff, Niklas", "Ethayarajh, Kawin"),
        venue="ICLR 2026",
    ),
    needs=frozenset({"reference", "token-logps"}),
    addresses=frozenset({"distribution-shift"}),
    expected_failures={
        "any-model": "a token's log-ratio to the reference is clamped, so the reference is read in both calls"
    },
    api=2,
    verified=(
        Verified(against="autograd: a clamped token has no gradient", test="test_humanline_equals_clamped_log_ratios"),
        Verified(against="limit of wide bounds: the sum", test="test_humanline_with_wide_bounds_is_the_sum"),
    ),
)
