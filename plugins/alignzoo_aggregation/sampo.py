"""SamPO: every response of a prompt counts with as many tokens as the shortest one has.

    Σ_{t ∈ S} log π(y_t),     S: n tokens drawn without replacement,  n = the length of the prompt's shortest response

Lu et al., *Eliminating Biased Length Reliance of Direct Preference Optimization via Down-Sampled KL Divergence*, arXiv
2406.10957: n = min(|y_w|, |y_l|), so that the difference of lengths does not enter the difference of rewards. The
authors' code draws once more for the reference, which adds the noise of log π and log π_ref themselves to their ratio;
here S is drawn once per step and shared by policy, reference and all passes of the step. Where a prompt has more than
two responses, n is the shortest one's of the list; a response that stands alone keeps all of its tokens. The paper
pairs it with an iteratively refreshed reference: ``--geometry tr-dpo``.
"""

from __future__ import annotations

from alignzoo.interfaces import TokenView
from alignzoo.lazy import torch
from alignzoo.plugin import AggregationCard, Paper, Verified
from alignzoo_aggregation.weighted import Weighted, mask_of


class SamPO(Weighted):
    """Sums ``(R,)`` of a random subset of each response's tokens."""

    def token_weights(self, tokens: TokenView) -> torch.Tensor:
        mask = mask_of(tokens.responses)
        lengths, kept = tokens.responses.lengths.tolist(), tokens.responses.shortest().tolist()
        weights = mask.to("cpu", copy=True)
        for i, (length, count) in enumerate(zip(map(int, lengths), map(int, kept), strict=True)):
            if count < length:
                weights[i] = 0
                weights[i, torch.randperm(length, generator=tokens.generator(i))[:count]] = 1
        return weights.to(mask.device)


CARD = AggregationCard(
    name="sampo",
    target=f"{__name__}:SamPO",
    summary="SamPO: as many random tokens of each response as the shortest has",
    family="response length",
    formula="Σ_{t∈S} log π(y_t), S random, |S| the shortest response's length",
    paper=Paper(
        title="Eliminating Biased Length Reliance of Direct Preference Optimization via Down-Sampled KL Divergence",
        arxiv="2406.10957",
        authors=(
            "Lu, Junru",
            "Li, Jiazheng",
            "An, Siyu",
            "Zhao, Meng",
            "He, Yulan",
            "Yin, Di",
            "Sun, Xing",
        ),
        venue="EMNLP 2024",
    ),
    needs=frozenset({"token-logps"}),
    addresses=frozenset({"length-bias"}),
    api=2,
    verified=(
        Verified(against="limit of equal lengths: the sum", test="test_sampo_of_equal_lengths_is_the_sum"),
        Verified(
            against="expectation over draws in closed form: n/|y| times the sum",
            test="test_sampo_has_the_mean_and_size_of_a_draw_without_replacement",
        ),
    ),
)
