"""``alignzoo sharpness``: the loss around a model's weights, or around those that a run has trained."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from alignzoo.base.files import write_json
from alignzoo.contract.card import Need
from alignzoo.data.parts import Parts, load_parts
from alignzoo.errors import AlignzooError, DataError, UsageError
from alignzoo.geometry.plots import draw_slices, drawn_or_told
from alignzoo.geometry.projections import Projection, find_down_projections
from alignzoo.geometry.sharpness import Subspace, measure
from alignzoo.geometry.subspace import SavedSelection, select_neurons, selection_file
from alignzoo.logprobs.forward import forward_of
from alignzoo.model.load import check_vocabulary, find_model, load_config, load_policy, load_tokenizer
from alignzoo.model.positions import fitted
from alignzoo.model.weights import fingerprint
from alignzoo.plan.plan import Plan
from alignzoo.plugin.registry import resume_words
from alignzoo.probe.fit import cached_probe
from alignzoo.report import Reporter
from alignzoo.reward.context import RewardContext
from alignzoo.reward.scoring import scored
from alignzoo.runs.folder import new_folder
from alignzoo.step.context import Engine, StepContext
from alignzoo.train.assemble import group_indices, objective_of, probe_source
from alignzoo.train.batches import Sizes, by_length

if TYPE_CHECKING:
    from accelerate import Accelerator

EVERYTHING, NEURONS = "all", "neurons"
SHARE = 0.01
"""Of the MLP neurons, selected where a run has not saved any: shapo-token's default."""

Neurons = tuple[Sequence[Projection], Sequence[torch.Tensor]]


@dataclass(frozen=True)
class Question:
    """What to measure.

    Attributes:
        plan: model, data, loss and wrappers; the reference is the plan's model.
        run: the run folder whose trained weights are measured; None for the plan's model itself.
        radii: above 0, in the weights' unit.
        directions: how many random ones are averaged.
        subspace: ``all``, ``neurons`` or patterns of names; None for the run's neurons where it has some, else all.
        selection: where to read the neurons from, instead of the run.
    """

    plan: Plan
    run: Path | None
    radii: Sequence[float]
    directions: int
    subspace: str | None = None
    selection: str | None = None


def sharpness_command(question: Question, *, out: str | None, reporter: Reporter) -> dict[str, Any]:
    """Measure; with ``out``, write ``sharpness.json`` and ``sharpness.png`` there. Returns what was written.

    Raises:
        UsageError: ``out`` is not empty; a subspace or selection that the model does not have; several ranks.
        DataError: no pairs are held out.
        ModelError: a model that does not load.
        AlignzooError: the run has no trained model, or the loss is not finite.
    """
    if out is None:
        return _measure(question, reporter)
    with new_folder(Path(out), reporter, ["sharpness.json"]) as folder:
        found = _measure(question, reporter)
        write_json(folder / "sharpness.json", found)
    plot = folder / "sharpness.png"
    title = f"{found['model']}: {found['objective']} on {found['pairs']} held-out pairs"
    drawn_or_told(lambda: draw_slices(plot, found["subspaces"], title), plot, reporter)
    return {"out": str(folder), **found}


def _measure(question: Question, report: Reporter) -> dict[str, Any]:
    accelerator = _one_process()
    measured = question.plan.settings.model if question.run is None else str(question.run / "model")
    if question.run is not None and not Path(measured).is_dir():
        raise AlignzooError(
            f"{question.run} holds no trained model",
            hint=f"finish it with: {resume_words(question.run, trusting=question.plan.settings.trust_remote_code)}",
        )
    source = find_model(question.plan.settings.model)
    plan = fitted(question.plan, load_config(source, question.plan.settings), report)
    settings = plan.settings
    tokenizer = load_tokenizer(source, settings)
    probing: set[Need] = {"probe"} if _probing(question) else set()
    parts = load_parts(settings, tokenizer, needs=plan.needs | probing, report=report)
    if parts.held_out is None:
        raise DataError("no pairs are held out to measure the loss on", hint="raise --eval-share, or give --eval-data")
    report.note(f"loading {settings.model}")
    start = load_policy(source, settings).to(accelerator.device).eval()
    check_vocabulary(start, max(parts.highest_id, tokenizer.pad_token_id), settings.model)
    if plan.of("reward"):
        weights = fingerprint(start)
        probe = probe_source(start, parts, weights, accelerator, None, report)
        run = RewardContext(
            start, weights, accelerator.device, settings.seed, report, probe, settings.trust_remote_code
        )
        parts, _ = scored(plan.one("reward"), parts, run, accelerator, which=["held_out"])
    held_out: Any = parts.held_out
    choice = forward_of(plan, start, held_out, range(len(held_out)), tokenizer.pad_token_id, accelerator)
    report.note(choice.why)
    forward = choice.forward
    sizes = Sizes(settings.micro_batch_size, settings.tokens_per_micro_batch, choice.packed)
    cut = by_length(held_out, sizes, tokenizer.pad_token_id, parts.scores.get("held_out"))
    batches = [batch.to(accelerator.device) for batch in cut]
    with torch.no_grad():
        references = [forward(start, batch) if "reference" in plan.needs else None for batch in batches]
    chosen = _chosen_by_probe(start, parts, report, settings.seed) if _probing(question) else None
    policy = start
    if question.run is not None:
        report.note(f"loading {measured}")
        policy = load_policy(find_model(measured), settings).to(accelerator.device).eval()
        choice.adopt(policy)
    del start
    groups = group_indices(parts) if "groups" in plan.needs else {}
    engine = Engine(policy, forward, objective_of(plan), accelerator, settings.seed, groups)
    if engine.objective.stateful:
        report.warn("running statistics of the loss or a wrapper start again here: a run folder does not keep them")
    step = StepContext(engine, batches, references, 0)
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
    facts = {"model": measured, "reference": settings.model, "objective": plan.objective()}
    return {**facts, "pairs": len(held_out), "directions": question.directions, "seed": settings.seed, **found}


def _one_process() -> Accelerator:
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=not torch.accelerator.is_available())
    if accelerator.num_processes > 1:
        raise UsageError(
            "alignzoo sharpness works in one process", hint="start it without torchrun or accelerate launch"
        )
    return accelerator


def _saved(question: Question) -> Path | None:
    """Where neurons can be read from."""
    if question.selection is not None:
        return Path(question.selection)
    return selection_file(question.run) if question.run is not None else None


def _probing(question: Question) -> bool:
    """Whether neurons are asked for that must be selected here."""
    return question.subspace == NEURONS and _saved(question) is None


def _chosen_by_probe(start: Any, parts: Parts, report: Reporter, seed: int) -> list[torch.Tensor]:
    """The neurons of the initial model that shapo-token selects by default."""
    if parts.probe_train is None or parts.probe_validation is None:
        raise UsageError(
            "--subspace neurons selects with a probe, and --probe.share 0 leaves it no pairs",
            hint="name saved neurons: --selection PATH",
        )
    projections = find_down_projections(start)
    probe = cached_probe(start, parts.probe_train, parts.probe_validation, report=report)
    return select_neurons(projections, "anti-toxic", SHARE, direction=probe.direction, seed=seed)


def _subspaces(question: Question, policy: Any, chosen: list[torch.Tensor] | None) -> list[Subspace]:
    """The subspace that was asked for, and all trained weights beside it."""
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
                f"--subspace: no trained weight is called {word!r}",
                hint=f"it is all, neurons, or names such as {next(iter(weights), 'none')}; * stands for any text",
            )
    return Subspace(patterns, [w for name, w in weights.items() if any(fnmatchcase(name, word) for word in words)])


def _of_neurons(projections: Sequence[Projection], selected: Sequence[torch.Tensor]) -> Subspace:
    """What the selected inputs write, in the maps' own weights, also where these are frozen below an adapter."""
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
    """Inside, gradients are taken of the subspaces' weights and of no others; after, of those as before."""
    wanted = {id(weight) for subspace in subspaces for weight in subspace.weights}
    flags = [(weight, weight.requires_grad) for weight in policy.parameters()]
    try:
        for weight, _ in flags:
            weight.requires_grad_(id(weight) in wanted)
        yield
    finally:
        for weight, flag in flags:
            weight.requires_grad_(flag)
