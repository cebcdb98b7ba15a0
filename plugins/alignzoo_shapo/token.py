"""ShaPO, token level: the worst case over a small alignment-critical subspace of the weights.

    g = ∇_M L(θ),     ε = ρ·g/‖g‖  (or γ·g),     update with ∇L(θ + ε)

L is the whole step's objective, loss and robust wrappers included; M selects MLP neurons: the value vectors (columns
of the down projections) of the *initial* model whose cosine with a linear safety probe's direction v = w_unsafe −
w_safe is smallest. *Revisiting Robustness for LLM Safety Alignment via Selective Geometry Control*, arXiv 2602.07340.

Where this deviates from the released code, and why: the ascent sees the whole step and not one micro-batch, so the
result does not depend on how the step is cut (``scope``); ε has a set length ρ, because an unnormalised γ·g with γ ≈
3e-6 mostly vanishes in a bf16 forward (``radius``); side branches carry ε, so weights are never touched.
``preset=official`` goes back to the released code's arithmetic. ρ and ‖ε‖ are Euclidean norms over the selected
weights, all layers together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from alignzoo.geometry.perturb import norm
from alignzoo.interfaces import GeometryController, StepLoss
from alignzoo.lazy import torch
from alignzoo.plugin import Card, Need, Options, Paper, Verified

if TYPE_CHECKING:
    from alignzoo.train.context import SetupContext, StepContext

OFFICIAL: dict[str, Any] = {
    "radius": "raw",
    "scope": "microbatch",
    "interval": 5,
    "select": "anti-toxic",
    "share": 0.01,
}
BY_PROBE = ("anti-toxic", "toxic", "abs")


class ShaPOTokenOptions(Options):
    """When, how far and on which neurons; a preset fills in what is not given."""

    preset: Literal["default", "official"] = Field(
        "default", description="official: raw radius per micro-batch, as in the released code"
    )
    rho: float = Field(0.05, ge=0, description="length of the perturbation (radius normalized)")
    radius: Literal["normalized", "raw"] = Field("normalized", description="ε = ρ·g/‖g‖, or ε = γ·g")
    gamma_min: float = Field(2e-6, ge=0, description="γ is drawn uniformly from here (radius raw)")
    gamma_max: float = Field(4e-6, ge=0, description="γ is drawn uniformly up to here (radius raw)")
    interval: int = Field(5, ge=1, description="perturb every so many optimizer steps")
    scope: Literal["step", "microbatch"] = Field(
        "step", description="what the ascent sees: the whole step, or each micro-batch alone"
    )
    select: Literal["anti-toxic", "toxic", "abs", "random", "all"] = Field(
        "anti-toxic", description="neurons by cosine with the probe's direction (lowest, highest, absolute), or without"
    )
    share: float = Field(0.01, gt=0, le=1, description="share of all MLP neurons that is selected")
    probe: str | None = Field(None, description="folder of a trained probe (default: trained on part of the data)")

    @model_validator(mode="before")
    @classmethod
    def _fill_in_preset(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("preset") == "official":
            return {**OFFICIAL, **values}
        return values

    @model_validator(mode="after")
    def _no_idle_option(self) -> ShaPOTokenOptions:
        given = self.model_fields_set
        if self.radius == "raw" and "rho" in given:
            raise ValueError("rho does nothing with radius raw; set gamma_min and gamma_max, or radius normalized")
        if self.radius == "normalized" and given & {"gamma_min", "gamma_max"}:
            raise ValueError("gamma_min and gamma_max do nothing with radius normalized; set rho, or radius raw")
        if self.gamma_min > self.gamma_max:
            raise ValueError(f"gamma_min {self.gamma_min:g} is above gamma_max {self.gamma_max:g}")
        if self.select == "all" and "share" in given:
            raise ValueError("share does nothing with select all")
        if self.select not in BY_PROBE and self.probe is not None:
            raise ValueError(f"probe does nothing with select {self.select}")
        return self

    def needs(self) -> frozenset[Need]:
        return frozenset({"probe"}) if self.select in BY_PROBE and self.probe is None else frozenset()


class ShaPOToken(GeometryController):
    """Ascent on the selected neurons' side branches, descent gradient of all parameters at the perturbed point."""

    options: ShaPOTokenOptions

    def setup(self, run: SetupContext) -> None:
        from alignzoo.geometry.projections import find_down_projections
        from alignzoo.geometry.side_branch import SideBranches
        from alignzoo.geometry.subspace import save_selection, select_neurons

        options = self.options
        projections = find_down_projections(run.model)
        probe = run.probe(options.probe) if options.select in BY_PROBE else None
        selected = select_neurons(
            projections,
            options.select,
            options.share,
            direction=probe.direction if probe else None,
            seed=run.seed,
        )
        self.projections, self.selected = projections, selected
        self.branches = SideBranches(projections, selected)
        if run.folder is not None:
            facts = {"select": options.select, "share": options.share, "probe": probe.facts if probe else None}
            save_selection(run.folder / "geometry", projections, selected, facts)
        run.report.note(
            f"shapo-token: {sum(map(len, selected))} of {sum(p.inner for p in projections)} neurons selected "
            f"({options.select}) in {sum(len(index) > 0 for index in selected)} of {len(projections)} layers"
        )

    def state_dict(self) -> dict[str, Any]:
        return {"selected": self.selected}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        from alignzoo.geometry.side_branch import SideBranches

        self.selected = state["selected"]
        self.branches = SideBranches(self.projections, self.selected)

    def step(self, ctx: StepContext) -> StepLoss:
        if (ctx.step + 1) % self.options.interval:
            return ctx.backward()
        if self.options.scope == "step":
            loss, figures = self._perturbed(ctx)
        else:
            steps = [self._perturbed(part) for part in ctx.parts()]
            loss = ctx.join([part for part, _ in steps])
            figures = {name: sum(f[name] for _, f in steps) / len(steps) for name in steps[0][1]}
        for name, value in figures.items():
            ctx.log(name, value)
        return loss

    def _perturbed(self, ctx: StepContext) -> tuple[StepLoss, dict[str, float]]:
        """The loss at the weights, its gradient taken at the perturbed point, and the figures of the perturbation."""
        with self.branches.attached():
            loss, ascent = ctx.gradient(self.branches.deltas)
            length = norm(ascent)
            factor = self._factor(length, ctx)
            if factor * length > 0:
                self.branches.perturb([factor * g for g in ascent])
                perturbed = ctx.backward()
                survival = self.branches.survival()
        if factor * length == 0:  # without branches: even at Δ = 0 they change how a bf16 layer rounds
            loss = perturbed = ctx.backward()
            survival = 1.0
        return loss, {
            "radius": factor * length,
            "ascent_grad_norm": length,
            "sharpness_gap": float(perturbed.value - loss.value),
            "survival": survival,
        }

    def _factor(self, length: float, ctx: StepContext) -> float:
        options = self.options
        if options.radius == "normalized":
            return options.rho / length if length > 0 else 0.0
        draw = torch.rand((), generator=ctx.generator("gamma", per_rank=options.scope == "microbatch"))
        return options.gamma_min + (options.gamma_max - options.gamma_min) * float(draw)


CARD = Card(
    kind="geometry",
    name="shapo-token",
    target="alignzoo_shapo.token:ShaPOToken",
    options=ShaPOTokenOptions,
    summary="ShaPO: gradient at the worst case over a few alignment-critical neurons",
    formula="g = ∇_M L(θ); ε = ρ·g/‖g‖; step with ∇L(θ + ε), M the neurons most opposed to the unsafe direction",
    paper=Paper(
        title="Revisiting Robustness for LLM Safety Alignment via Selective Geometry Control", arxiv="2602.07340"
    ),
    passes=2,
    verified=(
        Verified(against="in-place perturbation of the weights", test="test_side_branch_equals_in_place_perturbation"),
        Verified(against="closed form on a quadratic", test="test_perturbed_gradient_on_a_quadratic"),
    ),
)
