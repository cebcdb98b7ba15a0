"""Optimizer steps on a tiny model, outside of a run: the real context, objective and accelerator."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import torch
from accelerate import Accelerator

from alignzoo.contract.card import Card, Need, Options
from alignzoo.contract.loss import LossCard
from alignzoo.contract.responses import ResponseBatch
from alignzoo.data.collate import TokenBatch
from alignzoo.distributed.seeds import mixed
from alignzoo.distributed.sharding import resharding, shard
from alignzoo.distributed.shards import whole
from alignzoo.interfaces import GeometryController, StepLoss
from alignzoo.logprobs import attention
from alignzoo.logprobs.forward import use_packing
from alignzoo.logprobs.logps import Forward, innermost, packed_logps, padded_logps
from alignzoo.logprobs.statistics import NOTHING, Ask, Statistics
from alignzoo.objective.objective import Objective
from alignzoo.probe.probe import Probe
from alignzoo.reference.frozen import Reference
from alignzoo.reference.moving import MovingReference
from alignzoo.report import Reporter
from alignzoo.step.context import StepContext
from alignzoo.step.engine import Engine
from alignzoo.step.setup import SetupContext
from alignzoo.testing.sample import GROUPS
from alignzoo.testing.stages import built
from alignzoo.testing.tiny import VOCAB, batch_of, random_rows, scored_rows, shifted, tiny_model, with_adapter

PAIRS = 8
"""Rows in a step of the :class:`Bench`."""
STEPS = 10
"""Steps of its run."""


def _either_way(model: torch.nn.Module, batch: TokenBatch, ask: Ask = NOTHING) -> ResponseBatch:
    packed = innermost(model).config._attn_implementation == attention.NAME and not ask.embeddings
    return (packed_logps if packed else padded_logps)(model, batch, ask, tokens=True)


every_field: Forward = resharding(_either_way)
"""All fields of a batch's responses, packed where the model has packed attention and nothing asks for padded rows."""


@dataclass(frozen=True)
class Data:
    """What the rows of the :class:`Bench` are.

    Attributes:
        mismatched: each row has KL responses as well: those of the row before it.
        needs: what is read of them.
    """

    shape: Literal["pairs", "unpaired", "ranked"] = "pairs"
    mismatched: bool = False
    needs: frozenset[Need] = frozenset()

    def rows(self, step: int) -> list[dict[str, Any]]:
        """The rows of a step."""
        rows, draw = self._rows(step), torch.Generator().manual_seed(500 + step)
        if "safety" not in self.needs:
            return rows
        flags = [torch.randint(0, 2, (len(row["response_ids"]),), generator=draw).bool().tolist() for row in rows]
        return [{**row, "safe": of_row} for row, of_row in zip(rows, flags, strict=True)]

    def _rows(self, step: int) -> list[dict[str, Any]]:
        seed = 100 + step
        if self.shape == "pairs":
            return scored_rows(PAIRS, seed=seed)
        draw = torch.Generator().manual_seed(seed)
        if self.shape == "ranked":
            ranked = random_rows([2, 4, 3, 2, 5, 3, 2, 4], seed=seed)
            return [{**row, "score": _descending(len(row["response_ids"]), draw)} for row in ranked]
        labels = torch.randint(0, 2, (PAIRS,), generator=draw).mul(2).sub(1).tolist()
        labels[step % PAIRS], labels[(step + 1) % PAIRS] = 1, -1  # there is one of either kind in every step
        return [{**row, "label": labels[i]} for i, row in enumerate(random_rows([1] * PAIRS, seed=seed))]

    def mismatched_of(self, rows: Sequence[dict[str, Any]], i: int) -> list[list[int]]:
        """Responses to another prompt, as many as row ``i`` has."""
        own, others = rows[i]["response_ids"], rows[i - 1]["response_ids"]
        return [others[j % len(others)] for j in range(len(own))]


def _descending(count: int, draw: torch.Generator) -> list[float]:
    """Random scores of a ranked row's responses, best first."""
    found: list[float] = torch.randn(count, generator=draw).sort(descending=True).values.tolist()
    return found


PAIRED = Data()


def data_for(card: Card) -> Data:
    """Rows that the method, if it is a loss, can read."""
    mismatched = "mismatched" in card.needs
    reads = card.reads if isinstance(card, LossCard) else "pairs"
    if reads == "pairs":
        return Data(mismatched=mismatched, needs=card.needs)
    return Data("ranked" if reads == "lists" else "unpaired", mismatched, card.needs)


Stage = Callable[[Card, Any], tuple[Objective, GeometryController]]
"""From a method to the objective and the controller of a step in which it takes part."""


def context(
    model: Any,
    batches: Sequence[TokenBatch],
    goal: Objective,
    *,
    reference: Any = None,
    step: int = 0,
    needs: frozenset[Need] = frozenset(),
) -> StepContext:
    """A step's context with the given reference model (an independent random one by default)."""
    reference = reference if reference is not None else shifted(model)
    engine = Engine(model, every_field, goal, Accelerator(cpu=True), seed=0, needs=needs)
    frozen = Reference(reference, every_field, ask=engine.statistics.of_reference())
    return StepContext(engine, batches, [frozen(batch) for batch in batches], step)


def random_texts(given: str | None, count: int) -> list[list[int]]:
    """A few short texts, others for each file that is asked for; they leave directions of the tiny models free."""
    draw = torch.Generator().manual_seed(mixed("texts", given))
    lengths = (5, 3, 6)
    return [torch.randint(3, VOCAB, (length,), generator=draw).tolist() for length in lengths[:count]]


def gradients(model: Any) -> dict[str, torch.Tensor]:
    """The gradients in ``.grad``, taken away from the model."""
    grads = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return grads


class Bench:
    """A tiny float64 llama, a reference elsewhere in weight space, and eight rows per step, with all their fields.

    Args:
        adapter: train a new LoRA adapter on the frozen model.
        sharded: each rank holds a part of the weights.
        data: what the eight rows of a step are.
    """

    def __init__(self, *, adapter: bool = False, sharded: bool = False, data: Data = PAIRED) -> None:
        self.accelerator = Accelerator(cpu=True)
        self.policy = copy.deepcopy(_policy())
        if adapter:
            self.policy = with_adapter(self.policy)
        self.data = data
        self.model = shard(self.policy) if sharded else self.accelerator.prepare_model(self.policy)
        self.probes_trained = 0
        self.moving: MovingReference | None = None

    def setup(self, controller: GeometryController) -> None:
        texts, moving = random_texts, self.moving_reference
        controller.setup(SetupContext(self.policy, 0, Reporter(), self.probe, texts=texts, moving_reference=moving))

    def moving_reference(self) -> MovingReference:
        """The bench's reference, from now on as one that moves."""
        self.moving = self.moving or MovingReference(self.policy, every_field, start=_reference())
        return self.moving

    def probe(self, given: str | None) -> Probe:
        """A random probe: one per folder that is asked for, and one that is "trained"."""
        self.probes_trained += given is None
        seed = int.from_bytes(hashlib.blake2b(repr(given).encode(), digest_size=4).digest(), "big")
        hidden = self.policy.config.get_text_config().hidden_size
        weight = torch.randn(2, hidden, generator=torch.Generator().manual_seed(seed))
        return Probe(weight, torch.zeros(2), {})

    def context(self, goal: Objective, step: int, *, size: int = PAIRS, forward: Forward = every_field) -> StepContext:
        """This rank's share of step ``step``, in micro-batches of at most ``size`` rows."""
        share = PAIRS // self.accelerator.num_processes
        batches, references = _share(self.data, step, share * self.accelerator.process_index, share, size)
        if self.moving is not None:
            references = [self.moving(batch) for batch in batches]
        groups = {f"g{i}": i for i in range(GROUPS)}
        engine = Engine(self.model, forward, goal, self.accelerator, 0, groups, self.data.needs, STEPS)
        return StepContext(engine, batches, references, step)

    def gradient(self) -> torch.Tensor:
        """The gradients in ``.grad`` as one vector, zeros where a trainable parameter has none; taken away."""
        parts = [
            whole(p.grad if p.grad is not None else torch.zeros_like(p)).flatten().clone()
            for p in self.policy.parameters()
            if p.requires_grad
        ]
        self.policy.zero_grad()
        return torch.cat(parts)


@lru_cache(maxsize=1)
def _policy() -> Any:
    model = tiny_model()
    use_packing(model)
    return model


@lru_cache(maxsize=1)
def _reference() -> Any:
    return shifted(_policy())


@lru_cache(maxsize=64)
def _share(data: Data, step: int, start: int, count: int, size: int) -> tuple[list[TokenBatch], list[ResponseBatch]]:
    """Some of a step's rows in micro-batches, with their log-probs under the reference."""
    rows = data.rows(step)
    others = [data.mismatched_of(rows, i) for i in range(len(rows))] if data.mismatched else None
    batches = []
    for first in range(start, start + count, size):
        own = slice(first, min(first + size, start + count))
        kl = None if others is None else others[own]
        batches.append(batch_of(rows[own], shape=data.shape, kl=kl))
    frozen = Reference(_reference(), every_field, ask=Statistics.of(data.needs).of_reference())
    return batches, [frozen(batch) for batch in batches]


@dataclass(frozen=True)
class Taken:
    """A step that was taken: value ``()``, weights ``(N,)`` of its values, and its gradient as one vector."""

    value: torch.Tensor
    weights: torch.Tensor
    gradient: torch.Tensor


def trajectory(
    stage: Stage,
    card: Card,
    options: Options,
    steps: Sequence[int],
    size: int,
    *,
    adapter: bool = False,
    sharded: bool = False,
) -> list[Taken]:
    """What a new method gives in these steps, cut into micro-batches of ``size`` pairs, on this process's ranks.

    Args:
        adapter, sharded: as of :class:`Bench`.
    """
    bench = Bench(adapter=adapter, sharded=sharded, data=data_for(card))
    goal, controller = stage(card, built(card, options))
    bench.setup(controller)
    return [_take(bench, goal, controller, step, size) for step in steps]


def trajectories(
    stage: Stage, card: Card, runs: Sequence[tuple[Options, Sequence[int]]], size: int, *, sharded: bool = False
) -> list[list[Taken]]:
    """:func:`trajectory` for each of several options with their steps."""
    return [trajectory(stage, card, options, steps, size, sharded=sharded) for options, steps in runs]


def _take(bench: Bench, goal: Objective, controller: GeometryController, step: int, size: int) -> Taken:
    loss: StepLoss = controller.step(bench.context(goal, step, size=size))
    goal.observe(loss.responses, coupled=False)
    return Taken(loss.value, goal.weights(loss.responses), bench.gradient())
