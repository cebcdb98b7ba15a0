"""``alignzoo sharpness``: the loss around the weights of a model, or of a run's trained model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch

from alignzoo.base.files import write_json
from alignzoo.contract.card import Need
from alignzoo.distributed.process import alone
from alignzoo.errors import AlignzooError, DataError, UsageError
from alignzoo.geometry.projections import Projection, find_down_projections
from alignzoo.geometry.subspace import SavedSelection, select_neurons, selection_file
from alignzoo.plan.plan import Plan
from alignzoo.plugin.registry import resume_words
from alignzoo.report import Reporter
from alignzoo.runs.claim import new_folder
from alignzoo.session.session import Session
from alignzoo.step.context import StepContext
from alignzoo_analysis.plots import draw_slices, drawn_or_told
from alignzoo_analysis.sharpness import Subspace, measure

EVERYTHING, NEURONS = "all", "neurons"
SHARE = 0.01
"""Share of MLP neurons to select if a run has not saved any: shapo-token's default."""

Neurons = tuple[Sequence[Projection], Sequence[torch.Tensor]]


@dataclass(frozen=True)
class Question:
    """What to measure.

    Attributes:
        plan: model, data, loss and wrappers; the reference is the plan's model.
        run: the run folder whose trained weights are measured; None for the plan's model itself.
        radii: above 0, in the weights' unit.
        directions: number of random directions to average over.
        subspace: ``all``, ``neurons`` or name patterns; None for the run's neurons if it has any, else all.
        selection: neurons to use instead of the run's.
    """

    plan: Plan
    run: Path | None
    radii: Sequence[float]
    directions: int
    subspace: str | None = None
    selection: str | None = None


def measured(question: Question, *, out: str | None, report: Reporter) -> dict[str, Any]:
    """Measure; with ``out``, write ``sharpness.json`` and ``sharpness.png`` there. Returns what was written.

    Raises:
        UsageError: ``out`` is not empty, the model lacks the subspace or selection, or several ranks.
        DataError: no pairs are held out.
        ModelError: a model that does not load.
        AlignzooError: the run has no trained model, or the loss is not finite.
    """
    if out is None:
        return _measured(question, report)
    with new_folder(Path(out), report, ["sharpness.json"]) as folder:
        found = _measured(question, report)
        write_json(folder / "sharpness.json", found)
    plot = folder / "sharpness.png"
    title = f"{found['model']}: {found['objective']} on {found['pairs']} held-out pairs"
    drawn_or_told(lambda: draw_slices(plot, found["subspaces"], title), plot, report)
    return {"out": str(folder), **found}


def _measured(question: Question, report: Reporter) -> dict[str, Any]:
    probing: frozenset[Need] = frozenset({"probe"} if _probing(question) else ())
    accelerator = alone("alignzoo sharpness")
    trained = _trained(question)
    session = Session(question.plan, accelerator, report, uses=("held_out",), needs=probing)
    if session.parts.held_out is None:
        raise DataError("no pairs are held out to measure the loss on", hint="raise --eval-share, or give --eval-data")
    session.policy.eval()
    batches = [batch.to(accelerator.device) for batch in session.held_out_batches]
    references = session.starting_logps(batches)
    chosen = _chosen_by_probe(session) if _probing(question) else None
    if trained is not None:
        session.become(trained)
        session.policy.eval()
    if any(session.objective.observes(coupled=coupled) for coupled in (True, False)):
        report.warn("running statistics of losses and wrappers start from scratch: a run folder does not store them")
    step = StepContext(session.engine, batches, references, 0)
    policy, settings = session.policy, session.settings
    subspaces = _subspaces(question, policy, chosen)
    total = len(subspaces) * len(question.radii) * (1 + question.directions)
    with _asking_for_gradients(policy, subspaces), report.progress(total, "measuring", unit="point") as bar:
        found = measure(
            lambda: float(step.evaluate().value),
            lambda weights: step.gradient(weights)[1],
            subspaces,
            question.radii,
            directions=question.directions,
            seed=settings.seed,
            bar=bar,
        )
    return {**_facts(session, trained, question), **found}


def _trained(question: Question) -> Path | None:
    """The trained model of the requested run.

    Raises:
        AlignzooError: there is none.
    """
    if question.run is None:
        return None
    if not (question.run / "model").is_dir():
        raise AlignzooError(
            f"{question.run} contains no trained model",
            hint=f"finish it with: {resume_words(question.run, trusting=question.plan.settings.trust_remote_code)}",
        )
    return question.run / "model"


def _facts(session: Session, trained: Path | None, question: Question) -> dict[str, Any]:
    """The measurements and what they were taken on."""
    plan, settings, held_out = session.plan, session.settings, session.parts.held_out
    return {
        "model": settings.model if trained is None else str(trained),
        "reference": settings.model,
        "objective": plan.objective(),
        "pairs": 0 if held_out is None else len(held_out),
        "directions": question.directions,
        "seed": settings.seed,
    }


def _saved(question: Question) -> Path | None:
    """The path to read neurons from."""
    if question.selection is not None:
        return Path(question.selection)
    return selection_file(question.run) if question.run is not None else None


def _probing(question: Question) -> bool:
    """Whether the requested neurons have to be selected here."""
    return question.subspace == NEURONS and _saved(question) is None


def _chosen_by_probe(session: Session) -> list[torch.Tensor]:
    """The neurons of the initial model that shapo-token would select by default."""
    if session.parts.probe_train is None or session.parts.probe_validation is None:
        raise UsageError(
            "--subspace neurons selects with a safety probe, but --probe.share 0 leaves no pairs to train it",
            hint="raise --probe.share, or use saved neurons: --selection PATH",
        )
    projections = find_down_projections(session.policy)
    direction = session.probe(None).direction
    return select_neurons(projections, "anti-toxic", SHARE, direction=direction, seed=session.settings.seed)


def _subspaces(question: Question, policy: Any, chosen: list[torch.Tensor] | None) -> list[Subspace]:
    """The requested subspace, and all trained weights."""
    trained = {name: weight for name, weight in policy.named_parameters() if weight.requires_grad}
    everything = Subspace(EVERYTHING, list(trained.values()))
    saved = _saved(question)
    asked = question.subspace or (EVERYTHING if saved is None else NEURONS)
    if asked == EVERYTHING:
        return [everything]
    if asked != NEURONS:
        return [_named(asked, trained), everything]
    if chosen is not None:
        return [_of_neurons(find_down_projections(policy), chosen), everything]
    assert saved is not None
    return [_of_neurons(*SavedSelection.read(saved).on(policy)), everything]


def _named(patterns: str, weights: dict[str, torch.nn.Parameter]) -> Subspace:
    words = [word.strip() for word in patterns.split(",")]
    for word in words:
        if not any(fnmatchcase(name, word) for name in weights):
            raise UsageError(
                f"--subspace: no trained weight matches {word!r}",
                hint=f"use all, neurons, or names such as {next(iter(weights), 'none')}; * matches any text",
            )
    return Subspace(patterns, [w for name, w in weights.items() if any(fnmatchcase(name, word) for word in words)])


def _of_neurons(projections: Sequence[Projection], selected: Sequence[torch.Tensor]) -> Subspace:
    """The weights that the selected inputs are multiplied by, even if frozen below an adapter."""
    weights, masks = [], []
    for projection, index in zip(projections, selected, strict=True):
        if len(index):
            mask = torch.zeros(projection.weight.shape, dtype=torch.bool, device=projection.weight.device)
            projection.by_neuron(mask)[index.to(mask.device)] = True
            weights.append(projection.weight)
            masks.append(mask)
    return Subspace(NEURONS, weights, masks)


@contextmanager
def _asking_for_gradients(policy: torch.nn.Module, subspaces: Sequence[Subspace]) -> Iterator[None]:
    """Inside, only the subspaces' weights require gradients; the flags are restored afterwards."""
    wanted = {id(weight) for subspace in subspaces for weight in subspace.weights}
    flags = [(weight, weight.requires_grad) for weight in policy.parameters()]
    try:
        for weight, _ in flags:
            weight.requires_grad_(id(weight) in wanted)
        yield
    finally:
        for weight, flag in flags:
            weight.requires_grad_(flag)
