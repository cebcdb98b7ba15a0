"""From a plan, a policy and its pairs to a training loop that is ready to run, at its start or where it was left."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignzoo.data.collate import TokenBatch, batches_of
from alignzoo.data.parts import Parts
from alignzoo.data.stream import PairStream
from alignzoo.errors import AlignzooError
from alignzoo.geometry.probe import Probe
from alignzoo.geometry.probe_run import cached_probe
from alignzoo.model.reference import Reference
from alignzoo.model.weights import fingerprint
from alignzoo.observers import Observers
from alignzoo.plugin.build import instantiate
from alignzoo.plugin.plan import Plan
from alignzoo.plugin.settings import Settings
from alignzoo.report import Reporter
from alignzoo.train.checkpoint import Checkpoint, latest_checkpoint, load_checkpoint
from alignzoo.train.context import Engine, SetupContext
from alignzoo.train.controllers import Controllers
from alignzoo.train.evaluate import HeldOut
from alignzoo.train.logps import padded_pair_logps
from alignzoo.train.loop import Loop
from alignzoo.train.objective import Objective
from alignzoo.train.optim import make_optimizer

if TYPE_CHECKING:
    from accelerate import Accelerator


def assemble(
    plan: Plan,
    policy: Any,
    parts: Parts,
    *,
    pad_id: int,
    accelerator: Accelerator,
    folder: Path,
    report: Reporter,
    resuming: bool,
    observers: Observers | None = None,
) -> Loop:
    """Build methods, reference, optimizer and loop; with ``resuming``, restore the last whole checkpoint.

    Args:
        policy: the policy with the weights that training starts from, on the accelerator's device, not yet prepared.

    Raises:
        AlignzooError: resuming, but the weights or the data are not those that the run started from.
    """
    settings = plan.settings
    identities = {"weights": fingerprint(policy), "data": parts.fingerprint}
    checkpoint = _checkpoint(folder, identities, settings, report) if resuming else None
    stream = PairStream(len(parts.train), settings.batch_size, settings.seed)
    steps = _steps(stream, settings)
    controllers = [instantiate(method.card, method.options) for method in plan.controllers]
    controller = Controllers(controllers[0], controllers[1:])
    main = bool(accelerator.is_main_process)
    probe = _probe_source(policy, parts, identities["weights"], accelerator, folder, report)
    controller.setup(SetupContext(policy, settings.seed, report, probe, folder if main else None, steps))
    forward = partial(padded_pair_logps, tokens="token-logps" in plan.needs)
    reference = None
    if "reference" in plan.needs:
        reference = Reference(policy, forward, partial(accelerator.prepare_model, evaluation_mode=True))
    optimizer = make_optimizer((p for p in policy.parameters() if p.requires_grad), settings)
    groups = group_indices(parts) if "groups" in plan.needs else {}
    model = accelerator.prepare_model(policy)
    engine = Engine(model, forward, objective_of(plan), accelerator, settings.seed, groups)
    loop = Loop(
        engine=engine,
        controller=controller,
        reference=reference,
        optimizer=optimizer,
        batches=partial(_step_batches, parts, stream, settings.micro_batch_size, pad_id, accelerator),
        held_out=_held_out(engine, reference, parts, settings.micro_batch_size, pad_id, report),
        settings=settings,
        steps=steps,
        folder=folder,
        report=report,
        identities=identities,
        observers=observers or Observers({}, report),
    )
    passes = loop.steps * settings.batch_size / len(parts.train)
    report.note(f"{loop.steps} steps of {settings.batch_size} pairs: {passes:.2f} passes over the training pairs")
    if settings.track:
        accelerator.init_trackers("alignzoo", config=_flat(plan))
    if checkpoint is not None:
        loop.restore(checkpoint)
        report.note(f"resuming after step {loop.done} of {loop.steps}")
    return loop


def objective_of(plan: Plan) -> Objective:
    """The loss of a plan under its wrappers, newly built."""
    return Objective(
        instantiate(plan.loss.card, plan.loss.options),
        [instantiate(method.card, method.options) for method in plan.robust],
        coupled=plan.batch_coupled,
    )


def _steps(stream: PairStream, settings: Settings) -> int:
    """Optimizer steps of the run: what ``--epochs`` and ``--max-steps`` allow, one epoch where neither is given."""
    limits = [settings.max_steps] if settings.max_steps is not None else []
    if settings.epochs is not None or not limits:
        limits.append(stream.steps(settings.epochs or 1.0))
    return min(limits)


def _checkpoint(folder: Path, identities: dict[str, str], settings: Settings, report: Reporter) -> Checkpoint | None:
    """The checkpoint to continue from, None to start over; what the run started from must not have changed."""
    path = latest_checkpoint(folder)
    if path is None:
        report.warn(f"{folder} holds no whole checkpoint; starting from the first step")
        return None
    checkpoint = load_checkpoint(path)
    for what, source in (("weights", settings.model), ("data", settings.data)):
        if checkpoint.facts.get(what) != identities[what]:
            raise AlignzooError(
                f"the {what} of {source} are not those that this run started from",
                hint="restore them, or start a new run with another --out",
            )
    return checkpoint


def _probe_source(
    policy: Any, parts: Parts, weights: str, accelerator: Accelerator, folder: Path, report: Reporter
) -> Callable[[str | None], Probe]:
    """What a controller calls for the probe: read from the given folder, or reused or trained on the probe's pairs."""

    def probe(given: str | None) -> Probe:
        if given is not None:
            return Probe.load(Path(given), hidden=policy.config.get_text_config().hidden_size)
        with accelerator.main_process_first():
            trained = cached_probe(policy, parts.probe_train, parts.probe_validation, report=report, weights=weights)
        if accelerator.is_main_process:
            trained.save(folder / "probe")
        return trained

    return probe


def _step_batches(
    parts: Parts, stream: PairStream, micro_batch_size: int, pad_id: int, accelerator: Accelerator, step: int
) -> Sequence[TokenBatch]:
    """This rank's share of a step, in micro-batches."""
    indices = stream.indices(step)
    share = len(indices) // accelerator.num_processes
    start = accelerator.process_index * share
    return list(batches_of(parts.train, indices[start : start + share], micro_batch_size, pad_id))


def _held_out(
    engine: Engine, reference: Reference | None, parts: Parts, micro_batch_size: int, pad_id: int, report: Reporter
) -> HeldOut | None:
    """The held-out pairs in batches of similar length."""
    pairs = parts.held_out
    if pairs is None:
        return None
    prompts, chosen, rejected = (pairs[f"{side}_ids"][:] for side in ("prompt", "chosen", "rejected"))
    lengths = [len(p) + max(len(c), len(r)) for p, c, r in zip(prompts, chosen, rejected, strict=True)]
    by_length = sorted(range(len(pairs)), key=lambda row: lengths[row])
    return HeldOut(engine, reference, list(batches_of(pairs, by_length, micro_batch_size, pad_id)), report)


def group_indices(parts: Parts) -> dict[str, int]:
    """Numbers of the groups that the data names, the same whatever the order of the rows."""
    parts_with_groups = [part for part in (parts.train, parts.held_out) if part is not None]
    names = [name for part in parts_with_groups for name in part["group"][:]]
    return {name: index for index, name in enumerate(sorted(set(names)))}


def _flat(plan: Plan) -> dict[str, Any]:
    """The plan as trackers take it: flat, plain values."""
    values: dict[str, Any] = {
        f"{method.card.kind}.{method.card.name}.{name}": value
        for method in plan.methods
        for name, value in method.options.model_dump(mode="json").items()
    }
    values |= {Settings.flag(name): value for name, value in plan.settings.model_dump(mode="json").items()}
    return {name: value if isinstance(value, (int, float, bool)) else str(value) for name, value in values.items()}
