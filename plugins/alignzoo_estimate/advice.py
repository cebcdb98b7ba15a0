"""What to change if a run does not fit: each change is tried on the estimate itself."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from alignzoo.plan.plan import Plan
from alignzoo.plan.recipe import Layer
from alignzoo.plan.resolve import resolve
from alignzoo_estimate.compute import tokens
from alignzoo_estimate.estimate import Estimate, Hardware, Situation, estimate

RANK = 8
_PER_NODE, _NODES = 8, 64  # GPUs and nodes, at most
_MANY = 64  # rows in a micro-batch; more gain nothing
_ADAPTER = ("--lora", "--quantize")
WAYS: dict[str, tuple[str, ...]] = {
    "on this hardware": ("--gpus", *_ADAPTER),
    "with more GPUs": ("offload", *_ADAPTER),
    "with an adapter": ("--gpus", "offload"),
}
"""Kinds of combined changes, and the flags that they do without."""


@dataclass(frozen=True)
class Change:
    """Flags added to the run, and the resulting estimate."""

    words: str
    estimate: Estimate

    @property
    def adapts(self) -> bool:
        """Whether an adapter is trained instead."""
        return any(word in self.words for word in _ADAPTER)

    @property
    def total(self) -> float:
        """Peak bytes of one device."""
        return self.estimate.peak.total


@dataclass(frozen=True)
class _Candidate:
    words: str
    values: dict[str, Any]
    hardware: Hardware


def changes(found: Estimate, layers: Sequence[Layer]) -> list[Change]:
    """Single changes that lower the peak, the largest effect first.

    Args:
        layers: the layers that the plan was resolved from.
    """
    return sorted(_tried(found, _candidates(found.situation), layers), key=lambda one: one.total)


def _tried(found: Estimate, candidates: Iterable[_Candidate], layers: Sequence[Layer]) -> list[Change]:
    """Those of the changes that lower the peak."""
    made = ((one.words, _with(found.situation, one, layers)) for one in candidates)
    tried = [Change(words, changed) for words, changed in made if changed is not None]
    return [one for one in tried if one.total < found.peak.total]


def together(found: Estimate, layers: Sequence[Layer]) -> dict[str, list[Change]]:
    """Several changes that let a run fit, one after the other, by what they may touch (:data:`WAYS`); none if a single
    one on the same hardware is enough.

    Of several that are enough, the one that asks for the least else comes last: not for more GPUs, if possible, nor for
    host memory. Where no way leads to a run that fits, the one that lowers the peak most is all that is given.
    """
    paths: dict[tuple[str, ...], tuple[str, list[Change]]] = {}
    for how, without in WAYS.items():
        path = _path(found, layers, without)
        if not paths and len(path) == 1 and path[0].estimate.fits:
            return {}
        paths.setdefault(tuple(one.words for one in path), (how, path))
    found_paths = {how: path for how, path in paths.values() if path}
    fitting = {how: path for how, path in found_paths.items() if path[-1].estimate.fits}
    if fitting or not found_paths:
        return {how: path for how, path in fitting.items() if len(path) > 1}
    best = min(found_paths, key=lambda how: found_paths[how][-1].total)
    return {best: found_paths[best]}


def _path(found: Estimate, layers: Sequence[Layer], without: tuple[str, ...]) -> list[Change]:
    path: list[Change] = []
    now, said = found, list(layers)
    while not now.fits:
        candidates = {
            one.words: one for one in _candidates(now.situation) if not any(word in one.words for word in without)
        }
        best = min(_tried(now, candidates.values(), said), key=_preference, default=None)
        if best is None:
            break
        said.append(Layer("advice", candidates[best.words].values))
        path.append(best)
        now = best.estimate
    return path


def _preference(one: Change) -> tuple[bool, bool, bool, float]:
    fits = bool(one.estimate.fits)
    return not fits, fits and "--gpus" in one.words, fits and "offload" in one.words, one.total


def largest(found: Estimate) -> int | None:
    """Tokens of the largest micro-batch that fits, by the mean row; None if not even one row fits, or if the memory is
    unknown."""
    memory, situation = found.situation.hardware.memory, found.situation

    def total(rows: int) -> float:
        """The peak with this many rows per micro-batch, and several micro-batches per step."""
        update = {"micro_batch_size": rows, "tokens_per_micro_batch": None}
        update["batch_size"] = 2 * rows * situation.hardware.devices
        settings = situation.settings.model_copy(update=update)
        return estimate(replace(situation, plan=replace(situation.plan, settings=settings))).peak.total

    if memory is None:
        return None
    low, under = 2, total(2)
    if under > memory:
        low, under = 1, total(1)
        return tokens([situation.data.mean], situation.packed) if under <= memory else None
    high, over = 2 * low, total(2 * low)
    while over <= memory and high < _MANY:  # the memory per row hardly changes from here on
        low, under = high, over
        high = min(_MANY, max(low + 1, int(low + (memory - under) / max((over - total(2)) / (high - 2), 1.0)) + 1))
        over = total(high)
    if over <= memory:
        low = high
    while high - low > max(1, low // 20) and over > memory:
        middle = min(high - 1, max(low + 1, int(low + (high - low) * (memory - under) / (over - under))))
        found_there = total(middle)
        if found_there <= memory:
            low, under = middle, found_there
        else:
            high, over = middle, found_there
    return low * tokens([situation.data.mean], situation.packed)


def _with(situation: Situation, candidate: _Candidate, layers: Sequence[Layer]) -> Estimate | None:
    """The estimate with a change; None if the run would reject it."""
    sharding = candidate.hardware.sharding
    resolved = resolve([*layers, Layer("advice", candidate.values)], distributed=sharding)
    if not isinstance(resolved, Plan):
        return None
    return estimate(replace(situation, plan=resolved, hardware=candidate.hardware))


def _candidates(situation: Situation) -> Iterator[_Candidate]:
    settings, hardware = situation.settings, situation.hardware

    def with_words(**values: Any) -> _Candidate:
        flags = {name.replace("__", ".").replace("_", "-"): value for name, value in values.items()}
        words = " ".join(f"--{name}" if value is True else f"--{name} {value}" for name, value in flags.items())
        return _Candidate(words, flags, hardware)

    if not settings.activation_checkpointing:
        yield with_words(activation_checkpointing=True)
    if situation.rows_per_micro_batch > 1:
        fewer = situation.rows_per_micro_batch // 2
        if settings.tokens_per_micro_batch is None:
            for size in dict.fromkeys((fewer, 1)):
                yield with_words(micro_batch_size=size)
        else:
            yield with_words(tokens_per_micro_batch=fewer * tokens([situation.data.mean], situation.packed))
    if not situation.bf16:
        yield with_words(precision="bf16")
    if not settings.packing and situation.model.packable:
        yield with_words(packing=True)
    if situation.keeps_reference and not settings.reference_cache:
        yield with_words(reference_cache=True)
    if not settings.lora_r:
        yield with_words(lora__r=RANK)
    if hardware.cuda and settings.quantize == "none" and hardware.sharding != "fsdp":
        if settings.lora_r:
            yield with_words(quantize="4bit")
        else:
            yield with_words(lora__r=RANK, quantize="4bit")
    if hardware.cuda and settings.optimizer == "adamw" and not settings.lora_r and hardware.sharding != "fsdp":
        yield with_words(optimizer="adamw8bit")
    if hardware.sharding == "fsdp" and not situation.offloads_weights:
        yield with_words(offload="weights")
    if hardware.cuda and not situation.offloads_activations:
        yield with_words(activation_offloading=True)
    if hardware.cuda:
        yield from _machines(situation)


def _machines(situation: Situation) -> Iterator[_Candidate]:
    """FSDP2 on the same GPUs, and on more of them: the fewest that fit, or else the next larger number."""
    hardware = situation.hardware
    if hardware.sharding != "fsdp" and hardware.devices > 1:
        yield _Candidate("--sharding fsdp2", {}, replace(hardware, sharding="fsdp"))
    larger = [
        replace(hardware, devices=gpus * nodes, nodes=nodes, sharding="fsdp")
        for gpus, nodes in _sizes(hardware)
        if situation.settings.batch_size % (gpus * nodes) == 0
    ]
    chosen = next((one for one in larger if estimate(replace(situation, hardware=one)).fits), None)
    for one in larger[:1] if chosen is None else [chosen]:
        nodes = f" --nodes {one.nodes}" if one.nodes > 1 else ""
        sharding = "" if hardware.sharding == "fsdp" else " --sharding fsdp2"
        yield _Candidate(f"--gpus {one.per_node}{nodes}{sharding}", {}, one)


def _sizes(hardware: Hardware) -> Iterator[tuple[int, int]]:
    """GPUs per node and nodes, more than there are, by their number."""
    gpus, nodes = hardware.per_node, hardware.nodes
    while nodes == 1 and 2 * gpus <= _PER_NODE:
        gpus *= 2
        yield gpus, nodes
    for more in range(nodes + 1, _NODES + 1):
        yield gpus, more
