"""The options that controllers share: how far, when and which weights to perturb."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from alignzoo.contract.card import Options

Over = Literal["global", "layer", "neuron"]
EVERYTHING = "all"

# Shared options for how far, when and which weights; ρ is a Euclidean length in the weights' unit.
Rho = Annotated[float, Field(ge=0, description="length of the perturbation")]
Interval = Annotated[int, Field(ge=1, description="perturb every this many optimizer steps")]
Select = Annotated[
    str,
    Field(
        description="trainable weights to perturb: all, or comma-separated name patterns (*.mlp.*)",
        examples=["*.mlp.*"],
    ),
]
Norm = Annotated[
    Over, Field(description="distribute the length over all weights, equally over tensors, or equally over outputs")
]
Scope = Annotated[
    Literal["step", "microbatch"],
    Field(description="the objective: the whole step's, or each micro-batch's own"),
]
GapShare = Annotated[
    float, Field(gt=0, description="predicted rise of the loss, g·ε, as a share of the loss (radius gap)")
]


def refuse_idle_lengths(radius: str, given: set[str]) -> None:
    """Raise ValueError if ``rho`` or ``gap_share`` was set but has no effect."""
    if radius == "gap" and "rho" in given:
        raise ValueError("rho has no effect with radius gap; set gap_share, or radius normalized")
    if radius != "gap" and "gap_share" in given:
        raise ValueError(f"gap_share has no effect with radius {radius}; set radius gap")


class PerturbationOptions(Options):
    """How far, when, which weights, and how the length is distributed."""

    rho: Rho = 0.05
    interval: Interval = 1
    select: Select = EVERYTHING
    norm: Norm = "global"


class GapOptions(Options):
    """A fixed length, or one found in each step; for perturbations along which the objective rises to first order."""

    rho: Rho = 0.05
    radius: Literal["normalized", "gap"] = Field(
        "normalized",
        description="ε has length ρ, or the length at which g·ε is a given share of the loss",
        json_schema_extra={"search": []},
    )
    gap_share: GapShare = 0.1

    @model_validator(mode="after")
    def _no_idle_length(self) -> GapOptions:
        refuse_idle_lengths(self.radius, self.model_fields_set)
        return self


class ClimbOptions(GapOptions, PerturbationOptions):
    """How far, when, which weights, and how the length is distributed; the length is fixed or found."""


class AscentOptions(ClimbOptions):
    """The same, with the scope of the objective."""

    scope: Scope = "step"
