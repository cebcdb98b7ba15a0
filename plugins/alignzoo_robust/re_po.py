"""RE-PO: each annotator's reliability is estimated by expectation maximisation while training.

    t = ℓ(l, w) − ℓ(w, l),   p = σ(t),   ℓ' = −log(η_k·p + (1 − η_k)·(1 − p))
    after each optimizer step:   w = η_k·p/(η_k·p + (1 − η_k)(1 − p)),   η_k ← (1 − α)·η_k + α·mean_k w

Cao et al., *RE-PO: Robust Enhanced Policy Optimization as a General Framework for LLM Alignment*, arXiv 2509.24159. η_k
is the probability that annotator k's labels are right: one per ``group`` of the data (``annotators="groups"``) or one
for all (``"one"``). It works around any loss that is defined under the opposite label, but replaces it by the logistic
loss it induces: around DPO t = βh, and RE-IPO is RE-DPO with β' = 2/τ.

The paper's value is −w·log σ(t) − (1 − w)·log σ(−t) with w constant. Its gradient (p − w in t) is exactly that of the
marginal −log(…) above, which is the value here: it needs no detached weights, is bounded by −log(1 − η), and is the
same in both passes of a geometry controller. A suspect pair fades out; it is never trained towards the opposite label
while η > ½. Annotators without a pair in a step keep their η; updated ones stay within [0.001, 0.999], because at 0
and 1 the posterior could not move any more.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from alignzoo.interfaces import RobustWrapper, Values
from alignzoo.lazy import F, torch
from alignzoo.plugin import Card, Need, Options, Paper, Verified
from alignzoo_robust.fields import groups_of

CERTAIN = 1e-3
"""How close to 0 and 1 an updated η comes."""


class REPOOptions(Options):
    """η₀ and α, without a unit."""

    eta: float = Field(
        0.9,
        ge=0.5,
        le=1,
        description="initial probability that a label is right",
        json_schema_extra={"search": [0.6, 0.99]},
    )
    alpha: float = Field(
        0.1,
        ge=0,
        le=1,
        description="how fast it follows the posterior of a step; 0 keeps it",
        json_schema_extra={"search": [0.01, 1.0]},
    )
    annotators: Literal["one", "groups"] = Field(
        "one", description="one reliability for all, or one per group", json_schema_extra={"search": []}
    )

    def needs(self) -> frozenset[Need]:
        return frozenset({"groups"}) if self.annotators == "groups" else frozenset()


class REPO(RobustWrapper):
    """The marginal loss of each value ``(N,)``; the state is ``reliability``, η by annotator."""

    options: REPOOptions

    def __init__(self, options: REPOOptions) -> None:
        super().__init__(options)
        self.reliability = torch.zeros(0, dtype=torch.float64)

    def per_pair(self, loss: Values, pairs: Any) -> torch.Tensor:
        margin = loss(pairs.swap()) - loss(pairs)
        eta = self._of(self._annotators(pairs, len(margin))).to(margin)
        return -torch.logaddexp(eta.log() + F.logsigmoid(margin), torch.log1p(-eta) + F.logsigmoid(-margin))

    def observe_inside(self, loss: Values, pairs: Any) -> None:
        margin = loss(pairs.swap()) - loss(pairs)
        annotators = self._annotators(pairs, len(margin))
        eta = self._of(annotators).to(margin)
        posterior = torch.sigmoid(margin + eta.log() - torch.log1p(-eta))
        present, places, counts = torch.unique(annotators, return_inverse=True, return_counts=True)
        means = margin.new_zeros(len(present)).index_add(0, places, posterior) / counts
        moved = (1 - self.options.alpha) * self._of(present) + self.options.alpha * means.to(torch.float64)
        if self.options.alpha > 0:
            moved = moved.clamp(CERTAIN, 1 - CERTAIN)
        self.reliability = self._known(present).index_copy(0, present, moved)

    def metrics(self, losses: torch.Tensor, pairs: Any) -> dict[str, torch.Tensor]:
        """The mean and the least reliability of the annotators in the step."""
        eta = self._of(torch.unique(self._annotators(pairs, len(losses))))
        return {"reliability": eta.mean(), "least_reliability": eta.min()}

    def state_dict(self) -> dict[str, Any]:
        return {"reliability": self.reliability.cpu()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.reliability = state["reliability"]

    def _annotators(self, pairs: Any, count: int) -> torch.Tensor:
        """``(N,)`` int64."""
        if self.options.annotators == "groups":
            return groups_of(pairs, count)
        device = next(iter(pairs.present().values())).device
        return torch.zeros(count, dtype=torch.long, device=device)

    def _known(self, annotators: torch.Tensor) -> torch.Tensor:
        """η of all annotators up to the last of these; η₀ for those not seen before."""
        known = self.reliability.to(annotators.device)
        missing = max(0, int(annotators.max()) + 1 - len(known))
        return F.pad(known, (0, missing), value=self.options.eta)

    def _of(self, annotators: torch.Tensor) -> torch.Tensor:
        return self._known(annotators)[annotators]


CARD = Card(
    kind="robust",
    name="re-po",
    target=f"{__name__}:REPO",
    options=REPOOptions,
    summary="RE-PO: learns how reliable labels are and downweights suspect pairs",
    formula="−log(η_k·p + (1 − η_k)(1 − p)), p = σ(ℓ(l, w) − ℓ(w, l))",
    paper=Paper(
        title="RE-PO: Robust Enhanced Policy Optimization as a General Framework for LLM Alignment",
        arxiv="2509.24159",
        authors=(
            "Cao, Xiaoyang",
            "Xu, Zelai",
            "Guang, Mo",
            "Long, Kaiwen",
            "Bakker, Michiel A.",
            "Wang, Yu",
            "Yu, Chao",
        ),
        venue="ICLR 2026",
    ),
    family="label noise",
    addresses=frozenset({"label-noise"}),
    needs=frozenset({"swap"}),
    relabels=True,
    around=frozenset({"pairs", "responses", "lists"}),
    verified=(
        Verified(against="golden values", test="test_re_po_equals_golden_values"),
        Verified(against="the gradient of the paper's weighted form", test="test_re_po_has_the_papers_gradient"),
        Verified(against="its limit η = 1: DPO", test="test_re_po_of_certain_labels_is_dpo"),
    ),
)
