"""ShaPO, token level: the worst case over a small alignment-critical subspace of the weights.

    g = ∇_M L(θ),     ε = ρ·g/‖g‖  (or γ·g),     update with ∇L(θ + ε)

L is the whole step's objective, including robust wrappers; M selects MLP neurons: the value vectors (columns of the
down-projections) of the *initial* model with the lowest cosine with a linear safety probe's direction v = w_unsafe −
w_safe. *Revisiting Robustness for LLM Safety Alignment via Selective Geometry Control*, arXiv 2602.07340.

Deviations from the released code, and why: the ascent sees the whole step, not one micro-batch, so the result does not
depend on how the step is split (``scope``); ε has a fixed norm ρ, because an unnormalised γ·g with γ ≈ 3e-6 mostly
vanishes in a bf16 forward (``radius``); side branches carry ε, so weights are never modified. ``preset=official``
restores the released code's arithmetic: there, and under ``scope=microbatch``, L is each micro-batch's own on each
rank, in plain steps as well. ρ and ‖ε‖ are Euclidean norms over the selected weights of all layers, in the weights'
unit. A share of the neurons is rounded down, as released.

A ρ tuned for all weights has little effect on one neuron in a hundred: ``radius=gap`` sets ρ in each step so that the
predicted rise g·ε = ρ·‖g‖ is a share of the loss.

Every perturbed step logs ``radius`` (‖ε‖), ``ascent_grad_norm`` (‖g‖), ``predicted_rise`` (g·ε), ``sharpness_gap``
(L(θ + ε) − L(θ)), ``survival`` (share of ε that reaches the forward) and ``gradient_cosine`` (between g and
∇_M L(θ + ε)).
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from alignzoo_geometry.ascent import in_parts, warn_if_never
from alignzoo_geometry.vocabulary import GapShare, Scope, refuse_idle_lengths
from pydantic import Field, field_validator, model_validator

from alignzoo.geometry.perturb import cosine, norm
from alignzoo.interfaces import GeometryController, StepLoss
from alignzoo.lazy import torch
from alignzoo.plugin import Card, Need, Options, Paper, Verified

if TYPE_CHECKING:
    from collections.abc import Sequence

    from alignzoo.interfaces import SetupContext, StepContext

OFFICIAL: Any = {"radius": "raw", "scope": "microbatch", "interval": 5, "select": "anti-toxic", "share": 0.01}
BY_PROBE = ("anti-toxic", "toxic", "abs")
How = Literal["anti-toxic", "toxic", "abs", "random", "all"]


class ShaPOTokenOptions(Options):
    """Schedule, radius and neurons; a preset fills in options that are not set."""

    preset: Literal["default", "official"] = Field(
        "default",
        description="official: raw radius per micro-batch, as in the released code",
        json_schema_extra={"search": []},
    )
    rho: float = Field(0.05, ge=0, description="norm of the perturbation (radius normalized)")
    radius: Literal["normalized", "gap", "raw"] = Field(
        "normalized",
        description="ε = ρ·g/‖g‖; gap: ρ such that g·ε is a share of the loss; raw: ε = γ·g",
        json_schema_extra={"search": []},
    )
    gap_share: GapShare = 0.1
    gamma_min: float = Field(2e-6, ge=0, description="lower bound of the uniformly drawn γ (radius raw)")
    gamma_max: float = Field(4e-6, ge=0, description="upper bound of the uniformly drawn γ (radius raw)")
    interval: int = Field(5, ge=1, description="optimizer steps between perturbed steps")
    scope: Scope = "step"
    select: How | str = Field(
        "anti-toxic",
        description="neurons with the lowest, highest or largest absolute cosine with the probe's unsafe direction; "
        "random; all; or a saved selection (file or run folder)",
        json_schema_extra={"path": True},
    )
    share: float = Field(0.01, gt=0, le=1, description="share of the neurons to select")
    count: int | None = Field(None, ge=1, description="number of neurons to select, instead of a share")
    projections: str = Field(
        "down_proj",
        description="maps whose inputs are the neurons: down_proj (of the MLPs, in every model family), or names, "
        "comma-separated; mlp (all MLP maps) only with select random or all",
        examples=["o_proj", "down_proj,o_proj"],
    )
    probe: str | None = Field(
        None,
        description="folder of a trained probe (default: trained on part of the data)",
        json_schema_extra={"path": True},
    )

    @model_validator(mode="before")
    @classmethod
    def _fill_in_preset(cls, values: Any) -> Any:
        if not isinstance(values, dict) or values.get("preset") != "official":
            return values
        filled = {**OFFICIAL, **values}
        if "share" not in values and (filled.get("count") is not None or filled["select"] not in (*BY_PROBE, "random")):
            del filled["share"]
        return filled

    @field_validator("select")
    @classmethod
    def _known_or_saved(cls, select: str) -> str:
        if select not in get_args(How) and not Path(select).expanduser().exists():
            raise ValueError(f"neither {', '.join(get_args(How))}, nor a file or folder with a saved selection")
        return select

    @model_validator(mode="after")
    def _no_idle_option(self) -> ShaPOTokenOptions:
        given = self.model_fields_set
        if self.radius == "raw" and "rho" in given:
            raise ValueError("rho has no effect with radius raw; set gamma_min and gamma_max, or radius normalized")
        if self.radius != "raw" and given & {"gamma_min", "gamma_max"}:
            raise ValueError(f"gamma_min and gamma_max have no effect with radius {self.radius}; set radius raw")
        refuse_idle_lengths(self.radius, given)
        if self.gamma_min > self.gamma_max:
            raise ValueError(f"gamma_min {self.gamma_min:g} is above gamma_max {self.gamma_max:g}")
        if "share" in given and self.count is not None:
            raise ValueError("share and count exclude each other; use only one of them")
        idle: tuple[str, ...] = ()
        if self.select not in get_args(How):
            idle = ("share", "count", "projections")
        elif self.select == "all":
            idle = ("share", "count")
        for name in idle:
            if name in given and getattr(self, name) is not None:
                raise ValueError(f"{name} has no effect with select {self.select}")
        if self.select not in BY_PROBE and self.probe is not None:
            raise ValueError(f"probe has no effect with select {self.select}")
        return self

    def needs(self) -> frozenset[Need]:
        return frozenset({"probe"}) if self.select in BY_PROBE and self.probe is None else frozenset()


class ShaPOToken(GeometryController):
    """Ascent on the selected neurons' side branches; descent gradient of all parameters at the perturbed point."""

    name = "shapo-token"
    options: ShaPOTokenOptions

    def setup(self, run: SetupContext) -> None:
        """Select the neurons on the initial weights, and save the selection in the run folder.

        Raises:
            UsageError: a map or a saved selection does not fit the model, or a probe's direction is compared with
                maps that do not write to the residual stream.
            ModelError: the model has no recognisable down-projections.
        """
        from alignzoo.geometry.side_branch import SideBranches
        from alignzoo.geometry.subspace import SavedSelection, described, save_selection

        options = self.options
        warn_if_never(run, options.interval)
        facts: dict[str, Any] = {"select": options.select}
        if options.select in get_args(How):
            projections, selected = self._choose(run, facts)
        else:
            projections, selected = SavedSelection.read(options.select).on(run.model)
        self.projections, self.selected = projections, selected
        self.branches = SideBranches(projections, selected)
        if run.folder is not None:
            save_selection(run.folder / "geometry", projections, selected, facts)
        total, of = sum(map(len, selected)), sum(projection.inner for projection in projections)
        noun, maps = ("MLP neurons", "down-projections") if options.projections == "down_proj" else ("neurons", "maps")
        used, there = sum(len(index) > 0 for index in selected), len(projections)
        where = f"all {there} {maps}" if used == there else f"{used} of {there} {maps}"
        run.report.note(f"{self.name}: {described(total, of, options.select, noun)} in {where}")

    def _choose(self, run: SetupContext, facts: dict[str, Any]) -> tuple[Sequence[Any], Sequence[torch.Tensor]]:
        """Maps and indices as the options ask; records the criteria in ``facts``."""
        from alignzoo.geometry.projections import find_projections, names_mlp, out_of_reach, refuse_outside_residual
        from alignzoo.geometry.subspace import select_neurons

        options = self.options
        projections = find_projections(run.model, options.projections)
        if names_mlp(options.projections) and (unreached := out_of_reach(run.model)):
            run.report.warn(unreached)
        if options.select in BY_PROBE:
            refuse_outside_residual(projections, options.select)
        probe = run.probe(options.probe) if options.select in BY_PROBE else None
        how: Any = options.select
        selected = select_neurons(
            projections,
            how,
            options.share,
            count=options.count,
            direction=probe.direction if probe else None,
            seed=run.seed,
        )
        facts |= {
            "share": options.share if options.count is None else None,
            "count": options.count,
            "projections": options.projections,
            "probe": probe.facts if probe else None,
        }
        return projections, selected

    def state_dict(self) -> dict[str, Any]:
        return {"selected": list(self.selected)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        from alignzoo.geometry.side_branch import SideBranches

        self.selected = state["selected"]
        self.branches = SideBranches(self.projections, self.selected)

    def step(self, ctx: StepContext) -> StepLoss:
        if self.options.scope == "microbatch":
            return in_parts(ctx, self._take, plain=not self._perturbs(ctx))
        return self._take(ctx)

    def _perturbs(self, ctx: StepContext) -> bool:
        return (ctx.step + 1) % self.options.interval == 0

    def _take(self, ctx: StepContext) -> StepLoss:
        """The loss at the weights, with the gradient; every interval-th step takes it at the perturbed point."""
        if not self._perturbs(ctx):
            return ctx.backward()
        with self.branches.attached():
            loss, ascent = ctx.gradient(self.branches.deltas)
            length = norm(ascent)
            factor = self._factor(length, float(loss.value), ctx)
            moves = math.isfinite(length) and factor * length > 0
            if moves:
                self.branches.perturb([factor * g for g in ascent])
                perturbed = ctx.backward()
                survival = self.branches.survival()
                turned = cosine(ascent, _over_ranks(self.branches.gradients, ctx))
        if not moves:  # no branches: even at Δ = 0 they change how a bf16 layer rounds
            loss = perturbed = ctx.backward()
            survival = turned = 1.0
        ctx.log("radius", factor * length if moves else 0.0)
        ctx.log("ascent_grad_norm", length)
        ctx.log("predicted_rise", factor * length**2 if moves else 0.0)
        ctx.log("sharpness_gap", perturbed.value - loss.value)
        ctx.log("survival", survival)
        ctx.log("gradient_cosine", turned)
        return loss

    def _factor(self, length: float, value: float, ctx: StepContext) -> float:
        """ε/g for a gradient of this norm and an objective of this value."""
        options = self.options
        if options.radius == "normalized":
            return options.rho / length if length > 0 else 0.0
        if options.radius == "gap":
            return options.gap_share * abs(value) / length**2 if length > 0 else 0.0
        draw = torch.rand((), generator=ctx.generator("gamma", per_rank=options.scope == "microbatch"))
        return options.gamma_min + (options.gamma_max - options.gamma_min) * float(draw)


def _over_ranks(gradients: list[torch.Tensor], ctx: StepContext) -> list[torch.Tensor]:
    """Mean over ranks: DDP averages the weights' gradients but does not know about the branches."""
    if ctx.engine.world == 1:
        return gradients
    return [ctx.engine.accelerator.reduce(gradient, reduction="mean") for gradient in gradients]


CARD = Card(
    kind="geometry",
    name="shapo-token",
    target="alignzoo_shapo.token:ShaPOToken",
    options=ShaPOTokenOptions,
    summary="ShaPO: gradient at the worst case over alignment-critical neurons",
    family="geometry of alignment",
    addresses=frozenset({"distribution-shift", "safety"}),
    formula="g = ∇_M L(θ); ε = ρ·g/‖g‖; step with ∇L(θ + ε), M the neurons most opposed to the unsafe direction",
    paper=Paper(
        title="Revisiting Robustness for LLM Safety Alignment via Selective Geometry Control",
        arxiv="2602.07340",
        authors=(
            "Yang, Yonghui",
            "Tao, Wenjian",
            "Liu, Jilong",
            "Zhu, Xingyu",
            "Fang, Junfeng",
            "Huang, Weibiao",
            "Wu, Le",
            "Hong, Richang",
            "Chua, Tat-Seng",
        ),
        venue="ICML 2026",
    ),
    passes=2,
    sharded=True,
    verified=(
        Verified(
            against="the authors' liujilong0116/ShaPO@dea6efb, steps of their trainer (preset official)",
            test="test_steps_equal_shapos",
        ),
        Verified(against="the same, its choice of neurons", test="test_neurons_equal_shapos"),
        Verified(against="in-place perturbation of the weights", test="test_side_branch_equals_in_place_perturbation"),
        Verified(against="closed form on a quadratic", test="test_perturbed_gradient_on_a_quadratic"),
        Verified(
            against="the released code's arithmetic, derived again in plain torch (preset official)",
            test="test_the_official_preset_is_the_released_arithmetic",
        ),
    ),
)
