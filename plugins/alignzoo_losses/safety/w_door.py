"""W-DOOR: DOOR whose refusals are weighted by token, most where an aligned model differs from the reference.

    harmful pair    ℓ = α·( −Σ_t w_t·log π(y_w,t|·) − (2/β)·log σ(−β·b) ),     w_t = exp( (1/τ)·log(π*_t/π_ref,t) )
    harmless pair   ℓ = (1 − α)·( −log π(y_w|x) )

Zhao et al., *Improving LLM Safety Alignment with Dual-Objective Optimization*, arXiv 2503.03710. π* is a model trained
with DPO on the same pairs, ``--guide``; w_t are constants of y_w. Units and kinds of pairs are those of ``door``.

Paper and code disagree on the sign: the paper's weights, above, are large where π* prefers the token (``sign paper``,
the default), those of the code, exp((log π_ref,t − log π*_t)/τ), where it does not (``sign code``). The code also
unlearns harmful responses by their average log-prob, prompt included in the length, without a reference; here that
part is DOOR's under either sign. Exponents are bounded by 40.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from alignzoo.interfaces import PreferenceLoss
from alignzoo.lazy import torch
from alignzoo.pairs import PairBatch
from alignzoo.plugin import Card, Options, Paper, Verified
from alignzoo_losses.safety.refusals import refuse_and_unlearn, towards_safety


class WDOOROptions(Options):
    """α, β in 1/nats, and the weights of tokens."""

    alpha: float = Field(0.2, gt=0, lt=1, description="weight of harmful pairs; 1 − alpha is that of harmless ones")
    beta: float = Field(0.5, gt=0, description="how soon an unlikely harmful response stops counting")
    tau: float = Field(5.0, gt=0, description="nats of log-ratio that change a token's weight by a factor e")
    sign: Literal["paper", "code"] = Field(
        "paper",
        description="weigh most the tokens that the guide prefers (paper), or those it does not (code)",
        json_schema_extra={"search": []},
    )


class WDOOR(PreferenceLoss):
    """Values and rewards ``(B,)``; the rewards are β·(log π − log π_ref)."""

    options: WDOOROptions

    def __call__(self, pairs: PairBatch) -> torch.Tensor:
        """``(B,)``.

        Raises:
            ValueError: there are no safety labels, no log-probs of tokens, no guide, or no reference.
        """
        turned = towards_safety(pairs)
        logps, mask = turned.chosen_token_logps, turned.chosen_token_mask
        if logps is None or mask is None:
            raise ValueError("no tokens: the method's card must declare needs={'token-logps'}")
        refusal = -(mask * self._weights(turned) * logps).sum(-1)
        return refuse_and_unlearn(turned, refusal, self.options.alpha, self.options.beta)

    def _weights(self, pairs: PairBatch) -> torch.Tensor:
        """w ``(B, T)`` of the chosen responses' tokens."""
        guide, ref = pairs.chosen_guide_tokens, pairs.ref_chosen_token_logps
        if guide is None or ref is None:
            raise ValueError("no weights: the method's card must declare needs={'guide', 'reference', 'token-logps'}")
        ratio = guide - ref if self.options.sign == "paper" else ref - guide
        return (ratio.detach() / self.options.tau).clamp(max=40).exp()

    def rewards(self, pairs: PairBatch) -> tuple[torch.Tensor, torch.Tensor]:
        chosen, rejected = pairs.log_ratios()
        return self.options.beta * chosen, self.options.beta * rejected


CARD = Card(
    kind="loss",
    name="w-door",
    target=f"{__name__}:WDOOR",
    options=WDOOROptions,
    summary="W-DOOR: DOOR with refusal tokens weighted by an aligned model",
    family="safety losses",
    formula="α·(−Σ_t w_t·log π_w,t − (2/β)·log σ(−β·b)), w_t = (π*_t/π_ref,t)^{1/τ}; DOOR on harmless pairs",
    paper=Paper(
        title="Improving LLM Safety Alignment with Dual-Objective Optimization",
        arxiv="2503.03710",
        authors=("Zhao, Xuandong", "Cai, Will", "others"),
        venue="ICML 2025",
    ),
    needs=frozenset({"reference", "safety", "token-logps", "guide"}),
    under=frozenset({"sum"}),
    swaps=False,
    addresses=frozenset({"safety"}),
    verified=(
        Verified(
            against="the authors' wicai24/DOOR-Alignment@88eedea, sign code, refusals",
            test="test_w_door_equals_the_authors",
        ),
        Verified(against="limit π* = π_ref: DOOR", test="test_w_door_without_guidance_is_door"),
        Verified(against="closed form on the golden pairs", test="test_losses_equal_golden_values"),
    ),
)
