"""``alignzoo probe``: a probe of a plan's model on all of its data, with the neurons it selects."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignzoo.data.division import describe
from alignzoo.data.probe_rows import PROBE_VALIDATION, check_safety_known
from alignzoo.data.splits import split_by_prompt
from alignzoo.distributed.process import alone
from alignzoo.errors import ModelError
from alignzoo.geometry.projections import find_down_projections, out_of_reach
from alignzoo.geometry.subspace import FACTS_FILE as SELECTION_FACTS
from alignzoo.geometry.subspace import FILE as SELECTION_FILE
from alignzoo.geometry.subspace import Select, save_selection, select_neurons
from alignzoo.plan.plan import Plan
from alignzoo.probe.fit import part_digest, train_probe
from alignzoo.probe.probe import FACTS_FILE, TENSORS_FILE, Pooling, Probe
from alignzoo.report import Reporter
from alignzoo.runs.claim import new_folder
from alignzoo.session.session import Session
from alignzoo_analysis.plots import draw_probe, drawn_or_told

if TYPE_CHECKING:
    from datasets import Dataset

_FILES = (FACTS_FILE, TENSORS_FILE, SELECTION_FACTS, SELECTION_FILE)


@dataclass(frozen=True)
class Choices:
    """The choices made on the command line.

    Attributes:
        max_pairs: train and validate on at most this many; None for all.
        layers, pooling: see :func:`~alignzoo.probe.fit.train_probe`.
        select, share, count: as ``shapo-token`` would select MLP neurons with the probe.
    """

    max_pairs: int | None = None
    layers: str = "last"
    pooling: Pooling = "mean"
    select: Select = "anti-toxic"
    share: float = 0.01
    count: int | None = None


def trained(plan: Plan, choices: Choices, *, out: str, report: Reporter) -> dict[str, Any]:
    """Train a probe on the plan's model and data; save it with the neurons it selects and a plot.

    Returns:
        The probe's facts, the selection's under ``selection`` (None where the model has no MLP down projections), and
        the plot's path under ``plot``.

    Raises:
        UsageError: ``out`` exists and is not empty, a layer or a number of neurons that the model does not have, or
            several ranks.
        AlignzooError: ``out`` cannot be written.
    """
    session = Session(plan, alone("alignzoo probe"), report, uses=())
    with new_folder(Path(out), report, _FILES) as folder:
        probe = _probe_of(session, choices)
        selection = _save_selection(folder, session.policy, probe, choices, report)
        probe.save(folder)
    plot = folder / "probe.png"
    drawn = drawn_or_told(lambda: draw_probe(plot, probe.facts, selection), plot, report)
    return {"out": str(folder), **probe.facts, "selection": selection, "plot": str(plot) if drawn else None}


def _probe_of(session: Session, choices: Choices) -> Probe:
    parts = _parts_of(session, choices.max_pairs)
    facts = {
        "model": session.settings.model,
        "model_weights": session.weights,
        "data": {name: part_digest(part) for name, part in parts.items()},
        "source": session.settings.data,
        "seed": session.settings.seed,
    }
    return train_probe(
        session.policy,
        parts["train"],
        parts["validation"],
        report=session.report,
        facts=facts,
        layers=choices.layers,
        pooling=choices.pooling,
    )


def _parts_of(session: Session, max_pairs: int | None) -> dict[str, Dataset]:
    """The data, or at most ``max_pairs`` of it, split by prompt into ``train`` and ``validation``."""
    describe(session.prepared, session.report)
    pairs, seed = session.prepared.dataset, session.settings.seed
    check_safety_known(pairs, session.prepared.shape, session.settings.data)
    if max_pairs is not None and max_pairs < len(pairs):
        pairs = pairs.shuffle(seed=seed).select(range(max_pairs))
    return split_by_prompt(pairs, {"train": 1 - PROBE_VALIDATION, "validation": PROBE_VALIDATION}, seed, "probe")


def _save_selection(
    folder: Path, policy: Any, probe: Probe, choices: Choices, report: Reporter
) -> dict[str, Any] | None:
    """The neurons the probe selects, saved next to it; None for a model without selectable neurons."""
    try:
        projections = find_down_projections(policy)
    except ModelError as error:
        report.warn(f"no neurons selected: {error.message}")
        return None
    if unreached := out_of_reach(policy):
        report.warn(unreached)
    select, count = choices.select, choices.count
    by_probe = select in ("anti-toxic", "toxic", "abs")
    direction = probe.direction if by_probe else None
    selected = select_neurons(
        projections, select, choices.share, count=count, direction=direction, seed=probe.facts["seed"]
    )
    facts = {"select": select, "share": choices.share if count is None else None, "count": count}
    save_selection(folder, projections, selected, {**facts, "probe": probe.facts if by_probe else None})
    names = [projection.name for projection in projections]
    return {
        **facts,
        "neurons": sum(map(len, selected)),
        "of": sum(projection.inner for projection in projections),
        "neurons_by_layer": {name: len(index) for name, index in zip(names, selected, strict=True)},
    }
