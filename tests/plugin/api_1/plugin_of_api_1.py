"""A plugin as it was written for plugin API 1. It is not edited: while alignzoo speaks API 1, it has to work."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field

from alignzoo.data.formats import Layout
from alignzoo.data.rows import Drop, FieldError, PreferenceRow
from alignzoo.errors import AlignzooError, DataError, MethodError, UsageError
from alignzoo.interfaces import GeometryController, PreferenceLoss, RobustWrapper, StepLoss
from alignzoo.lazy import F, torch
from alignzoo.observers import RunObserver
from alignzoo.pairs import PairBatch
from alignzoo.plugin import Card, Composition, Extension, Options, Paper, Verified, hookimpl


class OldLossOptions(Options):
    beta: float = Field(0.1, gt=0, description="strength of the KL constraint")
    decay: float = Field(0.9, ge=0, lt=1, description="decay of the running margin")


class OldLoss(PreferenceLoss):
    """A running offset over steps, and every field of the batch that API 1 has."""

    options: OldLossOptions
    offset = 0.0

    def observe(self, pairs: PairBatch) -> None:
        margin = float((pairs.chosen_logps - pairs.rejected_logps).mean())
        self.offset = self.options.decay * self.offset + (1 - self.options.decay) * margin

    def __call__(self, pairs: PairBatch) -> torch.Tensor:
        chosen, rejected = self.rewards(pairs)
        per_token = (pairs.chosen_token_logps * pairs.chosen_token_mask).sum(-1) / pairs.chosen_lengths
        return F.softplus(rejected - chosen) + 0.01 * (per_token - self.offset).square()

    def rewards(self, pairs: PairBatch) -> tuple[torch.Tensor, torch.Tensor]:
        chosen, rejected = pairs.log_ratios()
        return self.options.beta * chosen, self.options.beta * rejected

    def state_dict(self) -> dict[str, Any]:
        return {"offset": self.offset}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.offset = state["offset"]


class OldWrapperOptions(Options):
    flip: float = Field(0.1, ge=0, lt=0.5, description="share of flipped labels")


class OldWrapper(RobustWrapper):
    """Mixes in the swapped pair, and weighs with a tilt over the step."""

    options: OldWrapperOptions

    def per_pair(self, loss: Any, pairs: PairBatch) -> torch.Tensor:
        return (1 - self.options.flip) * loss(pairs) + self.options.flip * loss(pairs.swap())

    def objective(self, losses: torch.Tensor) -> torch.Tensor:
        return losses.square().mean().sqrt()


class OldControllerOptions(Options):
    scale: float = Field(1.0, gt=0, description="factor on the gradient")


class OldController(GeometryController):
    """Uses every verb of the step's context."""

    options: OldControllerOptions

    def setup(self, run: Any) -> None:
        self.parameters = [p for p in run.model.parameters() if p.requires_grad]
        run.report.note(f"seed {run.seed}, folder {run.folder is not None}")

    def step(self, ctx: Any) -> StepLoss:
        before = ctx.evaluate()
        loss, gradient = ctx.gradient(self.parameters)
        ctx.join([part.backward() for part in ctx.parts()])
        ctx.engine.model.zero_grad()
        report = ctx.backward()
        assert torch.allclose(before.value, report.value)
        for parameter, direct in zip(self.parameters, gradient, strict=True):
            parameter.grad = self.options.scale * direct
        ctx.log("draw", torch.rand((), generator=ctx.generator("old")))
        ctx.log("pairs", float(len(report.pairs) + ctx.step - ctx.step))
        return loss

    def state_dict(self) -> dict[str, Any]:
        return {}


class OldObserver(RunObserver):
    """Writes down what it is told."""

    def on_start(self, folder: Path, plan: Mapping[str, Any], steps: int) -> None:
        self.file = folder / "heard.txt"
        self._say(f"start {steps} {plan['loss']['name']}")

    def on_step_end(self, step: int, metrics: Mapping[str, Any]) -> None:
        self._say(f"step {step} {metrics['step']}")

    def on_evaluation(self, step: int, figures: Mapping[str, float]) -> None:
        self._say(f"evaluation {step} {'eval/loss' in figures}")

    def on_checkpoint(self, step: int, folder: Path) -> None:
        self._say(f"checkpoint {step} {folder.is_dir()}")

    def on_end(self, result: Any, error: BaseException | None) -> None:
        self._say(f"end {result.status if result else type(error).__name__}")

    def _say(self, text: str) -> None:
        with self.file.open("a") as file:
            file.write(text + "\n")


def _normalise(row: Mapping[str, Any]) -> PreferenceRow | Drop:
    for field in ("ask", "good", "bad"):
        if not isinstance(row.get(field), str):
            raise FieldError(field, "is not text")
    if row["good"] == row["bad"]:
        return Drop("identical-sides")
    return PreferenceRow(row["ask"], row["good"], row["bad"], group="all")


LAYOUT = Layout("old-layout", "ask, good, bad: text", lambda row: "ask" in row, _normalise, gives=("group",))


def judge(request: Any, answer: str) -> str:
    return "refuses" if request.messages[-1]["content"] and answer.startswith("I ") else "complies"


ERRORS = (AlignzooError, DataError, MethodError, UsageError)


@hookimpl
def alignzoo_methods() -> list[Card | Composition]:
    return [
        Card(
            kind="loss",
            name="old-loss",
            target=f"{__name__}:OldLoss",
            options=OldLossOptions,
            summary="a loss of API 1",
            formula="softplus(−βh) + …",
            paper=Paper(title="Nowhere", arxiv="0000.00000"),
            needs=frozenset({"reference", "token-logps"}),
            batch_coupled=True,
            aliases=("ancient-loss",),
            api=1,
            verified=(Verified(against="nothing", test="test_nothing"),),
        ),
        Card(
            kind="robust",
            name="old-wrapper",
            target=f"{__name__}:OldWrapper",
            options=OldWrapperOptions,
            summary="a wrapper of API 1",
            formula="root mean square",
            batch_coupled=True,
            aggregates=True,
            api=1,
        ),
        Card(
            kind="geometry",
            name="old-controller",
            target=f"{__name__}:OldController",
            options=OldControllerOptions,
            summary="a controller of API 1",
            formula="c·∇L(θ)",
            passes=3,
            api=1,
        ),
        Composition(
            name="old-mix", summary="both", loss="old-loss", robust=("old-wrapper",), geometry="old-controller"
        ),
    ]


@hookimpl
def alignzoo_observers() -> list[Extension]:
    return [Extension(kind="observer", name="old-observer", target=f"{__name__}:OldObserver", summary="writes", api=1)]


@hookimpl
def alignzoo_formats() -> list[Extension]:
    return [Extension(kind="format", name="old-layout", target=f"{__name__}:LAYOUT", summary="ask, good, bad", api=1)]


@hookimpl
def alignzoo_judges() -> list[Extension]:
    return [Extension(kind="judge", name="old-judge", target=f"{__name__}:judge", summary="looks at the start", api=1)]
