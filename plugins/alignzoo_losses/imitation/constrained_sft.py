"""Constrained SFT: imitation that holds back where the policy already moved, most of all on the first tokens.

    ℓ = Σ_t (2/β_t)·softplus( β_t·[ log π_ref(y_t|·) − log π(y_t|·) ] )
    dℓ/d log π(y_t|·) = −2·( 1 − σ( β_t·[ log π(y_t|·) − log π_ref(y_t|·) ] ) )

Qi et al., *Safety Alignment Should Be Made More Than Just a Few Tokens Deep*, arXiv 2406.05946, eq. 3. At the reference
the gradient is that of SFT; a token that gained much more than 1/β_t nats counts no more. β_t is in 1/nats: ``beta``
for late tokens, times ``early_factor`` for the first ``early`` tokens, times ``first_factor`` for the very first one,
which starts with a high loss. At the reference ℓ is Σ_t (2/β_t)·log 2, not 0. It reads tokens, so ``--aggregation``
does not change it.

The authors' code computes −w_t·log π with the weight w_t = −dℓ/d log π held constant and at least 10⁻³, and the mean
over all tokens of a batch. Here the value is the paper's objective itself, per response, with the same gradient up to
that bound.
"""

from __future__ import annotations

from pydantic import Field

from alignzoo.contract.responses import ResponseBatch
from alignzoo.interfaces import PreferenceLoss
from alignzoo.lazy import F, torch
from alignzoo.plugin import Card, Options, Paper, Verified


class ConstrainedSFTOptions(Options):
    """β, in 1/nats, and its factors at the start of a response."""

    beta: float = Field(0.1, gt=0, description="strength of the constraint on late tokens")
    early: int = Field(5, ge=1, description="number of tokens at the start that are constrained more")
    early_factor: float = Field(20.0, gt=0, description="factor of beta on these tokens")
    first_factor: float = Field(5.0, gt=0, description="factor of beta on the very first token instead")


class ConstrainedSFT(PreferenceLoss):
    """Values and rewards ``(N,)`` of the responses to imitate; the rewards are log π − log π_ref."""

    options: ConstrainedSFTOptions

    def __call__(self, responses: ResponseBatch) -> torch.Tensor:
        """``(N,)``.

        Raises:
            ValueError: there are no log-probs of tokens, or no reference.
        """
        logps, ref, mask = responses.token_logps, responses.ref_token_logps, responses.token_mask
        if logps is None or ref is None or mask is None:
            raise ValueError("no tokens: the method's card must declare needs={'reference', 'token-logps'}")
        beta = self._betas(mask)
        return (mask * F.softplus(beta * (ref - logps)) * (2 / beta)).sum(-1)

    def _betas(self, mask: torch.Tensor) -> torch.Tensor:
        """β_t ``(R, T)`` by the token's place in the response."""
        place = mask.cumsum(-1)  # from 1
        early = self.options.beta * self.options.early_factor
        betas = torch.where(place <= self.options.early, early, self.options.beta).to(mask.dtype)
        return torch.where(place <= 1, self.options.beta * self.options.first_factor, betas)

    def rewards(self, responses: ResponseBatch) -> torch.Tensor:
        return responses.log_ratios()


CARD = Card(
    kind="loss",
    name="constrained-sft",
    target=f"{__name__}:ConstrainedSFT",
    options=ConstrainedSFTOptions,
    summary="Constrained SFT: imitation that protects the first tokens",
    family="imitation and unlearning",
    formula="Σ_t (2/β_t)·softplus(β_t·(log π_ref,t − log π_t))",
    paper=Paper(
        title="Safety Alignment Should Be Made More Than Just a Few Tokens Deep",
        arxiv="2406.05946",
        authors=("Qi, Xiangyu", "others"),
        venue="ICLR 2025",
    ),
    needs=frozenset({"reference", "token-logps"}),
    under=frozenset({"sum"}),
    reads="chosen",
    swaps=False,
    addresses=frozenset({"safety"}),
    verified=(
        Verified(
            against="the authors' Unispac/shallow-vs-deep-alignment@fb1749e, its gradient",
            test="test_constrained_sft_equals_the_authors",
        ),
        Verified(against="limit π = π_ref: the gradient of SFT", test="test_constrained_sft_starts_as_sft"),
    ),
)
