"""LD-DPO: length desensitisation.

    Σ_{t ≤ n} log π(y_t) + α · Σ_{t > n} log π(y_t),     n = the length of the prompt's shortest response, in tokens

What a response says beyond the length that all responses to its prompt have counts only α. α = 1 is the sum, α = 0 cuts
all responses to one length. Liu et al., *Length Desensitization in Direct Preference Optimization*, arXiv 2409.06411,
eq. 10, where n = min(|y_w|, |y_l|) and policy and reference are treated alike; here n is that of the list where a
prompt has more than two responses, and a response that stands alone is not shortened.
"""

from __future__ import annotations

from pydantic import Field

from alignzoo.contract.responses import ResponseBatch
from alignzoo.interfaces import Aggregation
from alignzoo.lazy import torch
from alignzoo.plugin import AggregationCard, Options, Paper, Verified


class LDOptions(Options):
    """α, without a unit."""

    alpha: float = Field(0.5, ge=0, le=1, description="weight of the tokens beyond the shortest response's length")


class LD(Aggregation):
    """Sums ``(R,)`` whose tail is weighed."""

    options: LDOptions

    def __call__(self, logps: torch.Tensor, token_logps: torch.Tensor | None, responses: ResponseBatch) -> torch.Tensor:
        if token_logps is None:
            raise ValueError("no log-probs of tokens: the method's card must declare needs={'token-logps'}")
        places = torch.arange(token_logps.shape[1], device=token_logps.device)
        tail = (token_logps * (places >= responses.shortest()[:, None])).sum(-1)
        return logps - (1 - self.options.alpha) * tail


CARD = AggregationCard(
    name="ld",
    target=f"{__name__}:LD",
    options=LDOptions,
    summary="LD-DPO: tokens beyond the shortest response's length count less",
    family="response length",
    addresses=frozenset({"length-bias"}),
    formula="Σ_{t≤n} log π(y_t) + α·Σ_{t>n} log π(y_t), n the shortest response's length",
    paper=Paper(
        title="Length Desensitization in Direct Preference Optimization",
        arxiv="2409.06411",
        authors=(
            "Liu, Wei",
            "Bai, Yang",
            "Han, Chengcheng",
            "Weng, Rongxiang",
            "Xu, Jun",
            "Cao, Xuezhi",
            "Wang, Jingang",
            "Cai, Xunliang",
        ),
    ),
    needs=frozenset({"token-logps"}),
    aliases=("ld-dpo",),
    api=2,
    verified=(
        Verified(against="TRL 1.16", test="test_dpo_under_ld_equals_trl"),
        Verified(against="limit α = 1: the sum", test="test_ld_with_alpha_1_is_the_sum"),
    ),
)
