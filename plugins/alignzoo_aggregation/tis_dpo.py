"""TIS-DPO: tokens weighed by two frozen models, of which one likes what is preferred and the other what is not.

    Σ_t w_t log π(y_t),     w_t = f(s_t),     s_t = ±[log π⁺(y_t) − log π⁻(y_t)]: + in the chosen response, − in others

    rank         w_t: linear in the rank of s_t among the response's tokens, from low to high
    clip-scale   w_t: linear in s_t clamped to ±clip, from low to high
    exponential  w_t = exp(±μ·clamp(log π⁺(y_t) − log π⁻(y_t), L, U))

Liu et al., *TIS-DPO: Token-level Importance Sampling for Direct Preference Optimization With Estimated Weights*, arXiv
2410.04350. π⁺ is ``--guide``, trained by DPO for instance; π⁻ is ``--contrast``, the same with reversed labels. The
exponential is the paper's; its authors' code has the other two, of which ``rank`` is the one in its README. The paper's
factor k of the exponential is left to β. The code gives an EOS no weight; here it is a token like the others, since a
truncated response has none. Tokens with equal s share the mean of their ranks, and a single token has the middle one.
Of more than two responses to a prompt, the best is the chosen one.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from alignzoo.contract.responses import ResponseBatch
from alignzoo.interfaces import TokenView
from alignzoo.lazy import torch
from alignzoo.plugin import AggregationCard, Options, Paper, Verified
from alignzoo_aggregation.weighted import Weighted, mask_of


class TISOptions(Options):
    """How weights follow from log-ratios; ``clip``, ``lower`` and ``upper`` are in nats."""

    transform: Literal["rank", "clip-scale", "exponential"] = Field(
        "rank", description="what makes weights of log-ratios"
    )
    low: float = Field(0.7, ge=0, description="least weight (rank, clip-scale)")
    high: float = Field(1.3, ge=0, description="greatest weight (rank, clip-scale)")
    clip: float = Field(1.5, gt=0, description="log-ratio of the greatest weight (clip-scale)")
    mu: float = Field(1.0, gt=0, description="μ: exponent of the ratio (exponential)")
    lower: float = Field(-0.5, description="L: least log-ratio (exponential)")
    upper: float = Field(1.5, description="U: greatest log-ratio (exponential)")

    @model_validator(mode="after")
    def _in_order(self) -> TISOptions:
        if self.low > self.high or self.lower >= self.upper:
            raise ValueError("low must not exceed high, and lower must be below upper")
        return self


class TISDPO(Weighted):
    """Sums ``(R,)`` weighed by a pair of frozen models."""

    options: TISOptions

    def token_weights(self, tokens: TokenView) -> torch.Tensor:
        responses, mask = tokens.responses, mask_of(tokens.responses)
        if responses.guide_tokens is None or responses.contrast_tokens is None:
            raise ValueError("no models to weigh by: the card must declare needs={'guide', 'contrast'}")
        ratios = responses.guide_tokens - responses.contrast_tokens
        return self.transform(ratios, signs(responses)[:, None], mask) * mask

    def transform(self, ratios: torch.Tensor, sign: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """``(R, T)`` weights from log π⁺ − log π⁻ and whether it speaks for the response (1) or against it (−1)."""
        options = self.options
        if options.transform == "exponential":
            return (sign * options.mu * ratios.clamp(options.lower, options.upper)).exp()
        if options.transform == "rank":
            shares = ranked(sign * ratios, mask)
        else:
            shares = ((sign * ratios).clamp(-options.clip, options.clip) / options.clip + 1) / 2
        return options.low + (options.high - options.low) * shares


def ranked(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """``(R, T)``: ranks of the values within the mask of their row, from 0 for the least to 1 for the greatest; equal
    values share the mean of their ranks, a single one has ½."""
    counts = mask.sum(-1, keepdim=True)
    kept = values.masked_fill(mask == 0, torch.inf).contiguous()
    ordered = kept.sort(-1).values
    below = torch.searchsorted(ordered, kept, side="left")
    upto = torch.minimum(torch.searchsorted(ordered, kept, side="right"), counts.long())
    ranks = (below + upto - 1).to(values) / 2
    return torch.where(counts > 1, ranks / (counts - 1).clamp(min=1), torch.full_like(ranks, 0.5))


def signs(responses: ResponseBatch) -> torch.Tensor:
    """``(R,)``: 1 for a response to imitate, −1 for the others."""
    found = torch.full_like(responses.logps, -1)
    found[responses.chosen_places()] = 1
    return found


CARD = AggregationCard(
    name="tis-dpo",
    target=f"{__name__}:TISDPO",
    options=TISOptions,
    summary="TIS-DPO: tokens weighted by a guide model against a contrast model",
    family="token weights",
    formula="Σ_t w_t·log π(y_t), w from ±log(π⁺/π⁻)",
    paper=Paper(
        title="TIS-DPO: Token-level Importance Sampling for Direct Preference Optimization With Estimated Weights",
        arxiv="2410.04350",
        authors=(
            "Liu, Aiwei",
            "Bai, Haoping",
            "Lu, Zhiyun",
            "Sun, Yanchao",
            "Kong, Xiang",
            "Wang, Simon",
            "Shan, Jiulong",
            "Jose, Albin Madappally",
            "Liu, Xiaojiang",
            "Wen, Lijie",
            "Yu, Philip S.",
            "Cao, Meng",
        ),
        venue="ICLR 2025",
    ),
    needs=frozenset({"token-logps", "guide", "contrast"}),
    experimental="not confirmed: the values of μ, L and U in the exponential transform",
    expected_failures={
        "any-label": "a token's weight says how much it speaks for a chosen, or against another response"
    },
    api=2,
    verified=(
        Verified(against="golden values (the authors' transforms)", test="test_tis_dpo_has_the_golden_weights"),
        Verified(against="limit low = high = 1: the sum", test="test_tis_dpo_with_weights_of_1_is_the_sum"),
    ),
)
