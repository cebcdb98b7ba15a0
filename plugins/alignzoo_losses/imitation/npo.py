"""Negative Preference Optimization: unlearning of undesirable responses, the rejected half of DPO.

    ℓ = −(2/β)·log σ( −β·a )   of an undesirable response,   0   of another one;     a = log π(y|x) − log π_ref(y|x)

Zhang et al., *Negative Preference Optimization: From Catastrophic Collapse to Effective Unlearning*, arXiv 2404.05868.
Log-probs are sums over response tokens, in nats; β is in 1/nats. β → 0 is gradient ascent on the log-likelihood, up to
a constant; with β > 0 the gradient vanishes as the response becomes unlikely. Undesirable are the rejected responses
of pairs and the negatively labelled ones of unpaired data.

The step's objective is the mean over *all* its responses: of pairs, half of them count 0. To keep desirable responses
likely, as the paper does on a retain set, add a likelihood: ``--loss npo --loss sft``.
"""

from __future__ import annotations

from pydantic import Field

from alignzoo.contract.responses import POLICY, ResponseBatch
from alignzoo.interfaces import PreferenceLoss
from alignzoo.lazy import F, torch
from alignzoo.plugin import Card, Options, Paper, Verified


class NPOOptions(Options):
    """β, in 1/nats."""

    beta: float = Field(0.1, gt=0, description="how soon an unlikely response stops counting")


class NPO(PreferenceLoss):
    """Values and rewards ``(N,)`` of the policy's responses; the rewards are β·(log π − log π_ref)."""

    options: NPOOptions

    def __call__(self, responses: ResponseBatch) -> torch.Tensor:
        """``(N,)``.

        Raises:
            ValueError: there is no label.
        """
        own = responses.of_role(POLICY)
        if own.labels is None:
            raise ValueError("no labels: the method's card must declare needs={'labels'}")
        values = negative_preference(own.log_ratios(), self.options.beta)
        return torch.where(own.labels < 0, values, torch.zeros_like(values))

    def rewards(self, responses: ResponseBatch) -> torch.Tensor:
        return self.options.beta * responses.of_role(POLICY).log_ratios()


def negative_preference(log_ratios: torch.Tensor, beta: float) -> torch.Tensor:
    """−(2/β)·log σ(−βa), elementwise."""
    return -F.logsigmoid(-beta * log_ratios) * (2 / beta)


CARD = Card(
    kind="loss",
    name="npo",
    target=f"{__name__}:NPO",
    options=NPOOptions,
    summary="NPO: unlearning of rejected or undesirable responses",
    family="imitation and unlearning",
    formula="−(2/β)·log σ(−β·a) of undesirable responses, a the log-ratio",
    paper=Paper(
        title="Negative Preference Optimization: From Catastrophic Collapse to Effective Unlearning",
        arxiv="2404.05868",
        authors=("Zhang, Ruiqi", "Lin, Licong", "Bai, Yu", "Mei, Song"),
        venue="COLM 2024",
    ),
    needs=frozenset({"reference", "labels"}),
    reads="responses",
    addresses=frozenset({"safety"}),
    verified=(
        Verified(against="npo_loss in wicai24/DOOR-Alignment@88eedea", test="test_npo_equals_the_code_of_door"),
        Verified(against="limit β → 0: gradient ascent", test="test_npo_of_small_beta_is_gradient_ascent"),
    ),
)
