"""From a session to a training loop that is ready to start or resume."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from alignzoo.data.shapes import NOUNS
from alignzoo.distributed.launch import distributed_backend
from alignzoo.errors import AlignzooError
from alignzoo.observers import Observers
from alignzoo.plan.plan import Plan
from alignzoo.plan.settings import Settings
from alignzoo.plugin.build import instantiate
from alignzoo.reward.histogram import note_soft_labels
from alignzoo.session.session import Session
from alignzoo.step.controllers import Controllers
from alignzoo.step.setup import SetupContext
from alignzoo.train.checkpoint import Checkpoint, load_latest
from alignzoo.train.loop import Loop
from alignzoo.train.optim import make_optimizer
from alignzoo.train.trackers import start_trackers


def begin(
    session: Session,
    folder: Path,
    *,
    resuming: bool = False,
    observers: Observers | None = None,
    planned: dict[str, Any] | None = None,
) -> Loop:
    """Set up the methods, the optimizer and the loop; with ``resuming``, restore the last complete checkpoint.

    Args:
        folder: the run folder.
        planned: the values of the plan file, which every checkpoint keeps.

    Raises:
        AlignzooError: resuming, but the weights, the data or the reward have changed since the run started.
    """
    settings, report = session.settings, session.report
    checkpoint = _checkpoint(session, folder) if resuming else None
    _ = session.scores, session.guides
    identities = session.identities
    if checkpoint is not None:
        _check_identities(
            checkpoint,
            identities,
            {"scores": "the reward", "guide": settings.guide or "", "contrast": settings.contrast or ""},
        )
    _note_soft_labels(session)
    _ = session.caches_reference  # which warns of what makes results depend on the batches
    controllers = _controllers(session)
    engine, reference = session.engine, session.reference
    optimizer = make_optimizer((p for p in session.policy.parameters() if p.requires_grad), settings)
    loop = Loop(
        engine=engine,
        controller=controllers,
        reference=reference,
        optimizer=optimizer,
        batches=session.batches,
        held_out=session.held_out,
        settings=settings,
        steps=session.steps,
        folder=folder,
        report=report,
        identities=identities,
        observers=observers or Observers({}, report),
        plan=planned or {},
    )
    passes, noun = loop.steps * settings.batch_size / len(session.parts.train), NOUNS[session.parts.shape]
    report.note(f"{loop.steps} steps of {settings.batch_size} {noun}: {passes:.2f} passes over the training rows")
    if settings.track:
        start_trackers(session.accelerator, settings.track, folder, _flat(session.plan))
    if checkpoint is not None:
        loop.restore(checkpoint)
        report.note(f"resuming after step {loop.done} of {loop.steps}")
    return loop


def _setup_context(session: Session) -> SetupContext:
    return SetupContext(
        session.policy,
        session.settings.seed,
        session.report,
        session.probe,
        session.folder,
        session.steps,
        session.texts,
        session.moving_reference,
    )


def _checkpoint(session: Session, folder: Path) -> Checkpoint | None:
    """The checkpoint to resume from, None to start over; the run's inputs must not have changed."""
    settings, identities = session.settings, session.identities
    sharing = session.accelerator if distributed_backend() == "fsdp" else None
    checkpoint = load_latest(folder, session.report, trusting=settings.trust_remote_code, sharing=sharing)
    if checkpoint is None:
        session.report.warn(f"{folder} contains no checkpoint; starting from the first step")
        return None
    _check_identities(checkpoint, identities, {"weights": settings.model, "data": settings.data})
    return checkpoint


def _check_identities(checkpoint: Checkpoint, identities: Mapping[str, str], sources: Mapping[str, str]) -> None:
    for what, source in sources.items():
        if checkpoint.facts.get(what) != identities.get(what):
            raise AlignzooError(
                f"the {what} of {source} changed since this run started",
                hint="restore it, or start a new run with another --out",
            )


def _controllers(session: Session) -> Controllers:
    """The geometry controllers after setup; a weight average comes last, because it sees the others' changes."""
    methods = sorted(session.plan.of("geometry"), key=lambda method: bool(getattr(method.card, "averages", False)))
    gradient, *companions = [instantiate(method.card, method.options) for method in methods]
    controllers = Controllers(gradient, companions)
    controllers.setup(_setup_context(session))
    return controllers


def _note_soft_labels(session: Session) -> None:
    """Report the training pairs' soft labels if a wrapper relabels them."""
    scores = session.scores.get("train")
    if scores is None or session.parts.shape != "pairs":
        return
    for wrapper in session.objective.wrappers:
        labels = wrapper.soft_labels(scores.values[0::2], scores.values[1::2])
        if labels is not None:
            note_soft_labels(labels, session.folder, session.report)


def _flat(plan: Plan) -> dict[str, Any]:
    """The plan for trackers: flat, plain values."""
    values: dict[str, Any] = {
        f"{method.card.kind}.{method.card.name}.{name}": value
        for method in plan.all_methods
        for name, value in method.options.model_dump(mode="json").items()
    }
    values |= {Settings.flag(name): value for name, value in plan.settings.model_dump(mode="json").items()}
    return {name: value if isinstance(value, (int, float, bool)) else str(value) for name, value in values.items()}
