"""From a plan, a policy and its pairs to a training loop that is ready to run, at its start or where it was left."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignzoo.data.collate import TokenBatch, batch_columns
from alignzoo.data.columns import column
from alignzoo.data.lengths import Lengths, lengths_of
from alignzoo.data.parts import Parts
from alignzoo.data.stream import PairStream
from alignzoo.data.texts import load_texts, training_texts
from alignzoo.distributed.ranks import on_all_ranks
from alignzoo.distributed.sharding import is_shard, prepare, resharding
from alignzoo.errors import AlignzooError
from alignzoo.evaluate.held_out import HeldOut
from alignzoo.interfaces import GeometryController
from alignzoo.logprobs.forward import forward_of, goes_by_batch
from alignzoo.model.load import check_vocabulary
from alignzoo.model.weights import fingerprint
from alignzoo.objective.objective import Objective
from alignzoo.observers import Observers
from alignzoo.plan.plan import Plan
from alignzoo.plan.settings import Settings
from alignzoo.plugin.build import instantiate
from alignzoo.probe.fit import cached_probe
from alignzoo.probe.probe import Probe
from alignzoo.reference.cached import cached_reference
from alignzoo.reference.compute import Filling, Source
from alignzoo.reference.frozen import Reference, ReferenceForward, as_reference
from alignzoo.reference.keys import reference_identity
from alignzoo.reference.store import Store, store_folder
from alignzoo.report import Reporter
from alignzoo.reward.context import RewardContext
from alignzoo.reward.histogram import note_soft_labels
from alignzoo.reward.scoring import scored
from alignzoo.reward.soft_labels import SoftLabels
from alignzoo.step.context import Engine, SetupContext
from alignzoo.step.controllers import Controllers
from alignzoo.train.batches import Sizes, StepBatches, by_length
from alignzoo.train.checkpoint import Checkpoint, load_latest
from alignzoo.train.loop import Loop
from alignzoo.train.optim import make_optimizer

if TYPE_CHECKING:
    import numpy as np
    from accelerate import Accelerator
    from transformers import PreTrainedTokenizerBase


def assemble(
    plan: Plan,
    policy: Any,
    parts: Parts,
    *,
    tokenizer: PreTrainedTokenizerBase,
    accelerator: Accelerator,
    folder: Path,
    report: Reporter,
    resuming: bool,
    observers: Observers | None = None,
    planned: dict[str, Any] | None = None,
) -> Loop:
    """Build methods, reference, optimizer and loop; with ``resuming``, restore the last whole checkpoint.

    Args:
        policy: the policy with the weights that training starts from, on the accelerator's device, not yet prepared.
        planned: the values of the plan file, which every checkpoint keeps.

    Raises:
        AlignzooError: resuming, but the weights, the data or the reward are not those that the run started from.
    """
    settings, pad_id = plan.settings, tokenizer.pad_token_id
    identities = {"weights": fingerprint(policy), "data": parts.fingerprint}
    checkpoint = _checkpoint(folder, identities, settings, report) if resuming else None
    stream = PairStream(len(parts.train), settings.batch_size, settings.seed)
    steps = _steps(stream, settings)
    in_order = sorted(plan.of("geometry"), key=lambda method: getattr(method.card, "averages", False))  # an average sees what the others left
    controllers = [instantiate(method.card, method.options) for method in in_order]
    controller = Controllers(controllers[0], controllers[1:])
    main = bool(accelerator.is_main_process)
    probe = probe_source(policy, parts, identities["weights"], accelerator, folder, report)
    parts = _scored(plan, parts, policy, identities, probe, accelerator, report)
    if checkpoint is not None:
        _check_identities(checkpoint, identities, {"scores": "the reward"})
    objective = objective_of(plan, controllers)
    _note_soft_labels(objective, parts, folder if main else None, report)
    lengths = lengths_of(parts.train)
    cached = "reference" in plan.needs and settings.reference_cache and _by_pair(policy, parts, lengths, report)
    texts = partial(_texts, policy, parts, tokenizer, settings, accelerator, report)
    controller.setup(SetupContext(policy, settings.seed, report, probe, folder if main else None, steps, texts))
    choice = forward_of(plan, policy, parts.train, stream.indices(0), pad_id, accelerator)
    report.note(choice.why)
    kept: Path | None = None
    if cached:
        kept = store_folder(reference_identity(policy, settings, identities["weights"], way=choice.way))
    forward = resharding(choice.forward)
    reference: ReferenceForward | None = None
    if "reference" in plan.needs and kept is None:
        reference = Reference(policy, forward, partial(prepare, accelerator, frozen=True))
    model = prepare(accelerator, policy)
    if kept is not None:
        store = Store(kept, tokens="token-logps" in plan.needs, report=report)
        budget = settings.tokens_per_micro_batch
        filling = Filling(store, partial(forward, policy), accelerator, report, pad_id, is_shard(policy), budget)
        sources = partial(_sources, parts, stream.visited(steps), choice.packed)
        with as_reference(policy):  # it still has the weights that training starts from
            reference = cached_reference(filling, sources)
    optimizer = make_optimizer((p for p in policy.parameters() if p.requires_grad), settings)
    groups = group_indices(parts) if "groups" in plan.needs else {}
    parts = replace(parts, train=batch_columns(parts.train))
    sizes = Sizes(settings.micro_batch_size, settings.tokens_per_micro_batch, choice.packed)
    engine = Engine(model, forward, objective, accelerator, settings.seed, groups)
    loop = Loop(
        engine=engine,
        controller=controller,
        reference=reference,
        optimizer=optimizer,
        batches=_step_batches(parts, stream, steps, sizes, lengths, pad_id, accelerator),
        held_out=_held_out(engine, reference, parts, sizes, pad_id, report),
        settings=settings,
        steps=steps,
        folder=folder,
        report=report,
        identities=identities,
        observers=observers or Observers({}, report),
        plan=planned or {},
    )
    passes = loop.steps * settings.batch_size / len(parts.train)
    report.note(f"{loop.steps} steps of {settings.batch_size} pairs: {passes:.2f} passes over the training pairs")
    if settings.track:
        accelerator.init_trackers("alignzoo", config=_flat(plan))
    if checkpoint is not None:
        loop.restore(checkpoint)
        report.note(f"resuming after step {loop.done} of {loop.steps}")
    return loop


def _sources(parts: Parts, rows: np.ndarray, packed: bool) -> list[Source]:
    """The pairs whose reference log-probs a run needs: these rows of the training pairs, and all that are held out."""
    held_out = [] if parts.held_out is None else [Source.of(parts.held_out, packed=packed)]
    return [Source.of(parts.train, rows, packed=packed), *held_out]


def objective_of(plan: Plan, controllers: Sequence[GeometryController] | None = None) -> Objective:
    """The loss of a plan under its wrappers, newly built, and under what its controllers (newly built as well, unless
    they are given) put around the loss."""
    if controllers is None:
        controllers = [instantiate(method.card, method.options) for method in plan.of("geometry")]
    return Objective(
        instantiate(plan.one("loss").card, plan.one("loss").options),
        [instantiate(method.card, method.options) for method in plan.of("robust")],
        controllers=controllers,
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
    checkpoint = load_latest(folder, report, trusting=settings.trust_remote_code)
    if checkpoint is None:
        report.warn(f"{folder} holds no checkpoint; starting from the first step")
        return None
    _check_identities(checkpoint, identities, {"weights": settings.model, "data": settings.data})
    return checkpoint


def _check_identities(checkpoint: Checkpoint, identities: dict[str, str], sources: dict[str, str]) -> None:
    for what, source in sources.items():
        if checkpoint.facts.get(what) != identities.get(what):
            raise AlignzooError(
                f"the {what} of {source} are not those that this run started from",
                hint="restore them, or start a new run with another --out",
            )


def _scored(
    plan: Plan,
    parts: Parts,
    policy: Any,
    identities: dict[str, str],
    probe: Callable[[str | None], Probe],
    accelerator: Accelerator,
    report: Reporter,
) -> Parts:
    """The parts with the scores of the run's reward, where it has one; it joins the run's identities."""
    if not plan.of("reward"):
        return parts
    if plan.one("reward").card.name == "probe" and "chosen_score" in parts.train.column_names:
        report.note("the data has scores; --reward column uses them")
    settings, weights = plan.settings, identities["weights"]
    context = RewardContext(
        policy, weights, accelerator.device, settings.seed, report, probe, settings.trust_remote_code
    )
    parts, identities["scores"] = scored(plan.one("reward"), parts, context, accelerator)
    return parts


def _note_soft_labels(objective: Objective, parts: Parts, folder: Path | None, report: Reporter) -> None:
    """Say which labels the training pairs have where a method gives them soft ones."""
    for layer in objective.layers:
        if isinstance(layer, SoftLabels):
            scores = parts.scores["train"]
            note_soft_labels(layer.soft_labels(scores.chosen, scores.rejected), folder, report)


def probe_source(
    policy: Any, parts: Parts, weights: str, accelerator: Accelerator, folder: Path | None, report: Reporter
) -> Callable[[str | None], Probe]:
    """What a controller or a reward calls for the probe: read from the given folder, or reused or trained on the
    probe's pairs, once in a run, on the first rank; a trained one is also saved in ``folder``."""

    def reused_or_trained() -> Probe | None:
        if not accelerator.is_main_process:
            return None
        trained = cached_probe(policy, parts.probe_train, parts.probe_validation, report=report, weights=weights)
        if folder is not None:
            trained.save(folder / "probe")
        return trained

    @cache
    def probe(given: str | None) -> Probe:
        if given is not None:
            return Probe.load(Path(given), hidden=policy.config.get_text_config().hidden_size)
        trained = on_all_ranks(accelerator, reused_or_trained)[0]
        assert trained is not None
        return trained

    return probe


def _texts(
    policy: Any,
    parts: Parts,
    tokenizer: PreTrainedTokenizerBase,
    settings: Settings,
    accelerator: Accelerator,
    report: Reporter,
    given: str | None,
    count: int,
) -> list[list[int]]:
    """What a controller calls for general texts: those of a file, or the run's own training pairs."""
    if given is None:
        return training_texts(parts.train, count, seed=settings.seed, report=report)
    with accelerator.main_process_first():
        found = load_texts(given, count, tokenizer=tokenizer, seed=settings.seed, report=report)
    check_vocabulary(policy, max(map(max, found)), settings.model)
    return found


def _step_batches(
    parts: Parts,
    stream: PairStream,
    steps: int,
    sizes: Sizes,
    lengths: Lengths,
    pad_id: int,
    accelerator: Accelerator,
) -> StepBatches:
    """This rank's micro-batches of every step; on a GPU in memory that it fetches from while the host goes on."""
    return StepBatches(
        pairs=parts.train,
        scores=parts.scores.get("train"),
        stream=stream,
        steps=steps,
        sizes=sizes,
        lengths=lengths,
        pad_id=pad_id,
        rank=accelerator.process_index,
        world=accelerator.num_processes,
        ready=TokenBatch.pinned if accelerator.device.type == "cuda" else lambda batch: batch,
    )


def _held_out(
    engine: Engine, reference: ReferenceForward | None, parts: Parts, sizes: Sizes, pad_id: int, report: Reporter
) -> HeldOut | None:
    """The held-out pairs in batches of similar length."""
    pairs = parts.held_out
    if pairs is None:
        return None
    batches = by_length(pairs, sizes, pad_id, parts.scores.get("held_out"))
    return HeldOut(engine, reference, batches, report)


def _by_pair(policy: Any, parts: Parts, lengths: Lengths, report: Reporter) -> bool:
    """Whether a pair's log-probs are its own, so that they can be computed in other batches than the policy's."""
    longest = int(lengths.longest.max())
    if parts.held_out is not None:
        longest = max(longest, int(lengths_of(parts.held_out).longest.max()))
    kind = goes_by_batch(policy, longest)
    if kind is not None:
        report.warn(
            f"the model's positions ({kind}) depend on the longest sequence of a batch, so results depend on "
            "--micro-batch-size, and the reference is computed in every step, in the policy's batches"
        )
    return kind is None


def group_indices(parts: Parts) -> dict[str, int]:
    """Numbers of the groups that the data names, the same whatever the order of the rows."""
    parts_with_groups = [part for part in (parts.train, parts.held_out) if part is not None]
    names = {name for part in parts_with_groups for name in column(part, "group").unique().to_pylist()}
    return {name: index for index, name in enumerate(sorted(names))}


def _flat(plan: Plan) -> dict[str, Any]:
    """The plan as trackers take it: flat, plain values."""
    values: dict[str, Any] = {
        f"{method.card.kind}.{method.card.name}.{name}": value
        for method in plan.all_methods
        for name, value in method.options.model_dump(mode="json").items()
    }
    values |= {Settings.flag(name): value for name, value in plan.settings.model_dump(mode="json").items()}
    return {name: value if isinstance(value, (int, float, bool)) else str(value) for name, value in values.items()}
