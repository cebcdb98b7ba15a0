"""f-DPO: DPO under another divergence from the reference.

    ℓ = −log σ( β·[ f'(e^a) − f'(e^b) ] ),     a = log π_w − log π_ref,w,     b = log π_l − log π_ref,l

    reverse-kl  f'(e^x) = x (DPO)             forward-kl  f'(e^x) = −e^{−x}
    js          f'(e^x) = log 2 + log σ(x)    alpha       f'(e^x) = (1 − e^{−αx})/α

Wang et al., *Beyond Reverse KL: Generalizing Direct Preference Optimization with Diverse Divergence Constraints*, arXiv
2309.16240. Log-ratios are sums over response tokens, in nats; β scales the link. α is the paper's, from reverse KL
(α → 0) to forward KL (α = 1); TRL's ``f_alpha_divergence_coef`` is 1 − α. Forward KL and α are stiff: a response that
lost 40 nats has a link of e^40, beyond which the link continues along its tangent (``links.py``).
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from alignzoo.interfaces import PreferenceLoss
from alignzoo.lazy import F, torch
from alignzoo.pairs import PairBatch
from alignzoo.plugin import Card, Options, Paper, Verified
from alignzoo_losses.divergence import links


class FDPOOptions(Options):
    """β and the divergence."""

    beta: float = Field(0.1, gt=0, description="strength of the constraint to the reference")
    divergence: Literal["reverse-kl", "forward-kl", "js", "alpha"] = Field(
        "js", description="divergence from the reference; reverse-kl is DPO"
    )
    alpha: float = Field(
        0.5, gt=0, le=1, description="of divergence alpha: from reverse KL (towards 0) to forward KL (1)"
    )

    @model_validator(mode="after")
    def _alpha_has_a_use(self) -> FDPOOptions:
        if self.divergence != "alpha" and "alpha" in self.model_fields_set:
            raise ValueError(f"alpha has no effect with divergence {self.divergence}; set divergence alpha")
        return self


class FDPO(PreferenceLoss):
    """Values and rewards ``(B,)``; the rewards are β·f'(π/π_ref)."""

    options: FDPOOptions

    def __call__(self, pairs: PairBatch) -> torch.Tensor:
        chosen, rejected = self.rewards(pairs)
        return -F.logsigmoid(chosen - rejected)

    def rewards(self, pairs: PairBatch) -> tuple[torch.Tensor, torch.Tensor]:
        chosen, rejected = pairs.log_ratios()
        return self.options.beta * self._link(chosen), self.options.beta * self._link(rejected)

    def _link(self, x: torch.Tensor) -> torch.Tensor:
        match self.options.divergence:
            case "reverse-kl":
                return links.reverse_kl(x)
            case "forward-kl":
                return links.forward_kl(x)
            case "js":
                return links.jensen_shannon(x)
            case "alpha":
                return links.alpha_divergence(x, self.options.alpha)


CARD = Card(
    kind="loss",
    name="f-dpo",
    target=f"{__name__}:FDPO",
    options=FDPOOptions,
    summary="f-DPO: DPO under forward KL, Jensen–Shannon or α-divergence",
    family="divergences",
    formula="−log σ(β·[f'(π_w/π_ref,w) − f'(π_l/π_ref,l)])",
    paper=Paper(
        title="Beyond Reverse KL: Generalizing Direct Preference Optimization with Diverse Divergence Constraints",
        arxiv="2309.16240",
        authors=("Wang, Chaoqi", "others"),
        venue="ICLR 2024",
    ),
    needs=frozenset({"reference"}),
    verified=(
        Verified(against="golden values", test="test_losses_equal_golden_values"),
        Verified(against="TRL 1.16", test="test_losses_equal_trl_on_its_own_batch"),
        Verified(against="the authors' alecwangcq/f-divergence-dpo@07d9369", test="test_f_dpo_equals_the_authors"),
        Verified(against="limits: DPO at reverse-kl and α → 0", test="test_f_dpo_has_dpo_as_a_limit"),
        Verified(against="the definitions of f, differentiated by autograd", test="test_links_are_derivatives_of_f"),
    ),
)
