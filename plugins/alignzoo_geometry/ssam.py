"""Sparse SAM: a share of the weights stays unperturbed.

    ε = ρ·(g/‖g‖) ⊙ M,     M ∈ {0, 1} with a share s of zeros,     step with ∇L(θ + ε)

Mi, Shen, Ren, Zhou, Sun, Ji, Tao, *Make Sharpness-Aware Minimization Stronger: A Sparsified Perturbation Approach*,
arXiv 2210.05177. ‖g‖ is the norm of the whole gradient, so ‖ε‖ is below ρ. M is updated every ``refresh`` perturbed
steps:

* ``fisher`` (SSAM-F): 0 for the share s of the weights with the least Fisher information F. Here F = Σ g² with the
  gradients of whole steps since the last refresh (the first mask: of the first step): free, and independent of how a
  step is split. The authors square the gradients of single examples, in 1024 extra passes; a step's g averages those
  first. As in their code ⌊(1 − s)·n⌋ of the n weights are perturbed.
* ``dynamic`` (SSAM-D): random at first; then the share ``drop`` of the perturbed weights with the smallest |g| is
  replaced by as many of the others, drawn at random. The authors decay ``drop`` to 0 over the run with a cosine; if
  more would leave than can enter, or the numbers are not whole, their mask shrinks, and ours does not:
  ⌈s·n⌉ weights stay unperturbed throughout.

Ties (such as weights without a gradient) are broken at random. Above 2²⁴ weights the quantiles are estimated from that
many of them, so the shares are approximate; ``unperturbed`` in the log is the true share. A new mask applies
immediately; in the authors' code from the next step on, which leaves their first step under ``fisher`` unperturbed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from alignzoo.distributed.shards import beside, count, cut_like
from alignzoo.geometry.perturb import widest
from alignzoo.interfaces import StepLoss
from alignzoo.lazy import torch
from alignzoo.plugin import GeometryCard, Options, Paper, Verified
from alignzoo_geometry.ascent import Moved, WeightMover, ascend, lengthened
from alignzoo_geometry.draws import drawn_from, kth_smallest
from alignzoo_geometry.vocabulary import ClimbOptions

if TYPE_CHECKING:
    from alignzoo.interfaces import StepContext


class SSAMOptions(ClimbOptions):
    """The common SAM options, plus how the mask is chosen and how often it is updated."""

    mode: Literal["fisher", "dynamic"] = Field("fisher", description="how the mask is chosen")
    sparsity: float = Field(
        0.2,
        ge=0,
        lt=1,
        description="s: share of the weights left unperturbed; 0 gives sam",
        json_schema_extra={"search": [0.0, 0.9]},
    )
    refresh: int = Field(100, ge=1, description="perturbed steps between mask updates")
    drop: float = Field(
        0.5, gt=0, le=1, description="share of the perturbed weights exchanged per update (mode dynamic)"
    )

    @model_validator(mode="after")
    def _no_idle_option(self) -> SSAMOptions:
        if self.mode == "fisher" and "drop" in self.model_fields_set:
            raise ValueError("drop has no effect with mode fisher; set mode dynamic")
        return self


class SSAM(WeightMover):
    """SAM under a mask."""

    options: SSAMOptions

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self._masks: list[torch.Tensor] = []  # M, bool
        self._information: list[torch.Tensor] = []  # F since the last refresh
        self._age = 0  # perturbed steps of the mask

    def step(self, ctx: StepContext) -> StepLoss:
        return ascend(ctx, self.options, self._epsilon)

    def _epsilon(self, ctx: StepContext, moved: Moved) -> Sequence[torch.Tensor] | None:
        masks = self._masks_of_the_step(ctx, moved.gradients)
        ctx.log("unperturbed", 1 - count(masks) / _size(masks))
        direction = lengthened(moved.gradients, self.options.rho, self.options.norm, moved.axes)
        return direction and [part * mask for part, mask in zip(direction, masks, strict=True)]

    def _masks_of_the_step(self, ctx: StepContext, gradients: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """M, recomputed if due."""
        if self.options.mode == "fisher":
            squares = [g.to(torch.promote_types(g.dtype, torch.float32)).square() for g in gradients]
            old = beside(self._information, gradients) if self._information else [torch.zeros_like(s) for s in squares]
            self._information = [f + square for f, square in zip(old, squares, strict=True)]
        self._masks = beside(self._masks, gradients) if self._masks else []
        masks = self._masks or None
        if masks is None or self._age >= self.options.refresh:
            generator = ctx.generator("ssam")
            if self.options.mode == "fisher":
                masks, self._information = self._informative(generator), []
            else:
                masks = self._exchanged(masks, gradients, generator) if masks else self._drawn(gradients, generator)
            self._masks, self._age = masks, 0
        self._age += 1
        return masks

    def _informative(self, generator: torch.Generator) -> list[torch.Tensor]:
        """The ⌊(1 − s)·n⌋ weights with the highest Fisher information."""
        size = _size(self._information)
        least = size - math.floor(size * (1 - self.options.sparsity))
        return [~mask for mask in _smallest(self._information, least, generator)]

    def _drawn(self, like: Sequence[torch.Tensor], generator: torch.Generator) -> list[torch.Tensor]:
        """All but a random share s."""
        return [~mask for mask in _smallest(_uniform(like, generator), self._still(like), generator)]

    def _exchanged(
        self, masks: Sequence[torch.Tensor], gradients: Sequence[torch.Tensor], generator: torch.Generator
    ) -> list[torch.Tensor]:
        """Replaces the perturbed weights with the smallest gradients by as many of the others."""
        perturbed = _size(gradients) - self._still(gradients)
        out = min(math.floor(self.options.drop * perturbed), self._still(gradients), count(masks))
        dropped = _smallest([g.abs() for g in gradients], out, generator, among=masks)
        kept = [mask & ~gone for mask, gone in zip(masks, dropped, strict=True)]
        others = [~mask for mask in masks]
        wanted = min(perturbed - count(kept), count(others))
        grown = _smallest(_uniform(gradients, generator), wanted, generator, among=others)
        return [k | new for k, new in zip(kept, grown, strict=True)]

    def _still(self, like: Sequence[torch.Tensor]) -> int:
        """The number of unperturbed weights in a dynamic mask."""
        return math.ceil(self.options.sparsity * _size(like))

    def state_dict(self) -> dict[str, Any]:
        return {"masks": self._masks, "information": self._information, "age": self._age}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._masks, self._information, self._age = state["masks"], state["information"], state["age"]


def _smallest(
    scores: Sequence[torch.Tensor],
    number: int,
    generator: torch.Generator,
    *,
    among: Sequence[torch.Tensor] | None = None,
) -> list[torch.Tensor]:
    """Mask of the ``number`` smallest scores, of all or ``among`` some; ties are broken at random."""
    if number <= 0:
        return [torch.zeros_like(score, dtype=torch.bool) for score in scores]
    places = [torch.ones_like(score, dtype=torch.bool) for score in scores] if among is None else among
    threshold = kth_smallest(scores, number, generator, among=places)
    below = [place & (score < threshold) for score, place in zip(scores, places, strict=True)]
    equal = [place & (score == threshold) for score, place in zip(scores, places, strict=True)]
    # There can be many exact zeros (an adapter's first step, rows of unseen tokens), far more than requested.
    drawn = drawn_from(equal, max(number - count(below), 0), generator)
    return [mask | some for mask, some in zip(below, drawn, strict=True)]


def _uniform(like: Sequence[torch.Tensor], generator: torch.Generator) -> list[torch.Tensor]:
    draws = (torch.rand(t.shape, generator=generator, dtype=torch.float64) for t in like)
    return [cut_like(draw.to(widest(t.device)), t) for draw, t in zip(draws, like, strict=True)]


def _size(tensors: Sequence[torch.Tensor]) -> int:
    return sum(tensor.numel() for tensor in tensors)


CARD = GeometryCard(
    api=1,
    name="ssam",
    target=f"{__name__}:SSAM",
    options=SSAMOptions,
    summary="Sparse SAM: SAM on a Fisher-based or dynamic subset of the weights",
    family="cheaper sharpness-aware steps",
    addresses=frozenset({"distribution-shift"}),
    formula="ε = ρ·(g/‖g‖) ⊙ M; step with ∇L(θ + ε)",
    paper=Paper(
        title="Make Sharpness-Aware Minimization Stronger: A Sparsified Perturbation Approach",
        arxiv="2210.05177",
        authors=("Mi, Peng", "Shen, Li", "Ren, Tianhe", "Zhou, Yiyi", "Sun, Xiaoshuai", "Ji, Rongrong", "Tao, Dacheng"),
        venue="NeurIPS 2022",
    ),
    passes=2,
    sharded=True,
    verified=(
        Verified(
            against="the authors' Mi-Peng/Sparse-Sharpness-Aware-Minimization@76974fd",
            test="test_ssam_equals_the_authors_by_fisher_information",
        ),
        Verified(against="the same, masks that move", test="test_ssam_equals_the_authors_when_masks_move"),
        Verified(against="closed form on a quadratic", test="test_ssam_on_a_quadratic"),
        Verified(against="limit s = 0: sam", test="test_the_limit_is_sam_to_the_bit"),
        Verified(against="its definition: masks over many refreshes", test="test_ssam_masks_keep_their_share"),
    ),
)
