"""What a geometry controller works with: all micro-batches of one optimizer step behind a few verbs.

Every verb evaluates the *whole* step's objective, over all micro-batches and ranks, at the current weights; on the
same data, with the same dropout masks, and with reference log-probs that were computed before any perturbation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from copy import copy
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from alignzoo.contract.pairs import PairBatch
from alignzoo.data.collate import TokenBatch
from alignzoo.distributed.seeds import mixed, seeded
from alignzoo.distributed.sharding import is_shard, reshard
from alignzoo.distributed.shards import is_sharded
from alignzoo.errors import AlignzooError
from alignzoo.geometry.outputs import Axes, output_axes
from alignzoo.geometry.perturb import perturbed
from alignzoo.geometry.survival import Survival, dtypes_in_forward
from alignzoo.interfaces import StepLoss
from alignzoo.logprobs.logps import PairForward
from alignzoo.objective.objective import Objective, pull_back
from alignzoo.objective.views import count_pairs, in_float64, relative_to, spread, with_constants
from alignzoo.report import Reporter

if TYPE_CHECKING:
    from accelerate import Accelerator

    from alignzoo.probe.probe import Probe


def _no_texts(given: str | None, count: int) -> list[list[int]]:
    raise AlignzooError("there are no texts outside of a run", hint="give SetupContext(texts=...)")


@dataclass(frozen=True)
class SetupContext:
    """What a controller may look at once, before training.

    Attributes:
        model: the policy with the weights training starts from, unwrapped.
        probe: the safety probe of that model: trained now, reused, or read from the given folder.
        folder: the run folder, for what should be kept beside the run; None on ranks that do not write.
        steps: optimizer steps of the whole run, None outside of one.
        texts: token ids of so many general texts from the given file, or else of training pairs (prompt and chosen
            response); the same on all ranks and after a resume, fewer where there are fewer.
    """

    model: torch.nn.Module
    seed: int
    report: Reporter
    probe: Callable[[str | None], Probe]
    folder: Path | None = None
    steps: int | None = None
    texts: Callable[[str | None, int], list[list[int]]] = _no_texts


@dataclass(frozen=True)
class Engine:
    """What stays the same over all steps of a run; ``groups`` numbers the group names of the data."""

    model: torch.nn.Module
    forward: PairForward
    objective: Objective
    accelerator: Accelerator
    seed: int
    groups: Mapping[str, int] = field(default_factory=dict)

    @property
    def world(self) -> int:
        return int(self.accelerator.num_processes)

    @property
    def sharded(self) -> bool:
        """Whether every rank holds a part of each weight only."""
        return is_shard(self.model)

    def gather(self, pairs: PairBatch) -> PairBatch:
        """The ranks' pairs as one batch, in rank order."""
        if self.world == 1:
            return pairs

        def over_ranks(value: torch.Tensor) -> torch.Tensor:
            if value.dim() == 2:
                value = self.accelerator.pad_across_processes(value, dim=1)
            return self.accelerator.gather(value.contiguous())

        return pairs.map(over_ranks)


@dataclass(frozen=True)
class Part:
    """Which micro-batch of a step a context of :meth:`StepContext.parts` is.

    Attributes:
        last: no other follows.
        share: its pairs, divided by those of all micro-batches of this rank.
        of_ranks: its pairs, divided by the mean over ranks of those of the micro-batch with this index.
    """

    index: int
    last: bool
    share: float
    of_ranks: float


class StepContext:
    """One optimizer step, seen by a controller.

    Args:
        engine: model, objective and accelerator of the run.
        batches: this rank's micro-batches.
        references: per micro-batch, the reference fields of its pairs (or None each).
        step: 0-based optimizer step.
    """

    def __init__(
        self, engine: Engine, batches: Sequence[TokenBatch], references: Sequence[PairBatch | None], step: int
    ) -> None:
        self.engine = engine
        self.batches = batches
        self.references = references
        self.step = step
        self.metrics: dict[str, float] = {}
        self._logged_by_parts: list[tuple[int, dict[str, float]]] = []  # with their numbers of pairs
        self._observed = False
        self._part: Part | None = None  # when this is one micro-batch of a step
        self._anchors: Sequence[PairBatch] | None = None  # per micro-batch, where log-probs are measured from
        self._kept: torch.Tensor | None = None  # (N,) bool, the pairs of the whole step that count

    @property
    def device(self) -> torch.device:
        return self.engine.accelerator.device

    def trainable(self) -> list[torch.nn.Parameter]:
        """The weights that the optimizer moves, in the model's order: all, or an adapter's."""
        return list(self.named_trainable().values())

    def named_trainable(self) -> dict[str, torch.nn.Parameter]:
        """The same by name, as the unwrapped model calls them."""
        model = self.engine.accelerator.unwrap_model(self.engine.model)
        return {name: weight for name, weight in model.named_parameters() if weight.requires_grad}

    @contextmanager
    def perturbed(self, weights: Sequence[torch.Tensor], deltas: Sequence[torch.Tensor]) -> Iterator[None]:
        """Inside, each weight is at its value plus its delta, after, its exact bits again; logs ``survival``, the share
        of the deltas that a forward sees. See :func:`alignzoo.geometry.perturb.perturbed`."""
        autocast = {"bf16": torch.bfloat16}.get(self.engine.accelerator.mixed_precision)
        survival = Survival()
        dtypes = dtypes_in_forward(self.engine.model, weights, autocast)
        move = perturbed(weights, deltas, survival=survival, dtypes=dtypes)
        del deltas
        with move:
            self.log("survival", survival.share(weights))
            yield

    def output_axes(self, weights: Sequence[torch.Tensor]) -> list[Axes]:
        """The dimensions of each of the model's weights that number its module's outputs."""
        return output_axes(self.engine.accelerator.unwrap_model(self.engine.model), weights)

    def log(self, name: str, value: float | torch.Tensor) -> None:
        """Put ``geometry/<name>`` into this step's line of ``metrics.jsonl``."""
        self.metrics[f"geometry/{name}"] = float(value)

    def generator(self, purpose: str, *, per_rank: bool = False) -> torch.Generator:
        """A CPU generator for a draw of this step: the same on resume, and the same on all ranks unless asked."""
        rank = self.engine.accelerator.process_index if per_rank else 0
        part = None if self._part is None else self._part.index
        return torch.Generator().manual_seed(mixed(self.engine.seed, purpose, self.step, rank, part))

    def backward(self) -> StepLoss:
        """Add the objective's gradient to ``.grad`` of every trainable parameter, averaged over ranks as needed."""

        scale = float(self._world) if self._part is None else self._part.share

        def push(scalar: torch.Tensor) -> None:
            self.engine.accelerator.backward(scalar * scale)

        return self._differentiate(push, exchange=True)

    def gradient(self, tensors: Sequence[torch.Tensor]) -> tuple[StepLoss, list[torch.Tensor]]:
        """The objective's gradient with respect to ``tensors`` only; no ``.grad`` is touched.

        ``tensors`` are leaves the model reads (weights, or the deltas of side branches), the same on all ranks.
        """

        scale = float(self._world) if self._part is None else self._part.of_ranks

        def push(scalar: torch.Tensor) -> None:
            if scalar.requires_grad:  # the model reads any of the tensors
                (scalar * scale).backward()

        with self._apart(tensors):
            loss = self._differentiate(push, exchange=False)
            found = [torch.zeros_like(t) if t.grad is None else t.grad for t in tensors]
        if self.engine.world > 1:  # FSDP2 has averaged the gradients of its shards, and nobody those of other leaves
            reduce = self.engine.accelerator.reduce
            found = [value if is_sharded(value) else reduce(value, reduction="mean") for value in found]
        return loss, found

    @contextmanager
    def _apart(self, tensors: Sequence[torch.Tensor]) -> Iterator[None]:
        """Inside, only ``tensors`` ask for gradients, and no ``.grad`` holds any yet; after, all is as it was."""
        weights = [weight for weight in self.engine.model.parameters() if weight.requires_grad]
        everything = {id(leaf): leaf for leaf in (*weights, *tensors)}.values()
        before = [(leaf, leaf.requires_grad, leaf.grad) for leaf in everything]
        asking = {id(tensor) for tensor in tensors}
        try:
            for leaf in everything:
                leaf.requires_grad_(id(leaf) in asking)
                leaf.grad = None
            yield
        finally:
            for leaf, flag, gradient in before:
                leaf.requires_grad_(flag)
                leaf.grad = gradient
            if self.engine.sharded:
                reshard(self.engine.model)  # also where no backward pass has done it

    def evaluate(self) -> StepLoss:
        """The objective at the current weights, without any gradient."""
        with torch.no_grad():
            parts = [self._forward(i) for i in range(len(self.batches))]
            pairs = self._gather(in_float64(PairBatch.cat(parts)))
            self._observe(pairs)
            pairs = self._counted(pairs)
            value = self._mean_over_ranks(self.engine.objective.value(pairs))
            return StepLoss(value, pairs, self._pair_ids())

    def anchored(self) -> StepContext:
        """This step with every log-prob measured from its value at the weights as they are now.

        What the objective of the returned context sees of the policy are differences from here, and the reference is
        0: the anchor stands in its place. Running statistics are those of the plain log-probs.
        """
        self._observe_all()
        other = copy(self)
        with torch.no_grad():
            other._anchors = [self._forward(i) for i in range(len(self.batches))]
        return other

    def only(self, kept: torch.Tensor) -> StepContext:
        """This step with the objective of some of its pairs alone, however they lie in micro-batches and on ranks.

        Args:
            kept: ``(N,)`` bool in the order of :attr:`StepLoss.pairs`, the same on all ranks, at least one True.
        """
        self._observe_all()
        other = copy(self)
        other._kept = kept
        return other

    def parts(self) -> Iterator[StepContext]:
        """One context per micro-batch, whose objective is that micro-batch's alone on each rank.

        Values and gradients are averaged over ranks, and what :meth:`backward` adds up is the average over
        micro-batches, in both by the number of pairs: of a plain mean over pairs, it is the step's gradient. Of other
        objectives it depends on how the step is cut; this exists to reproduce code that works so. Join the reports
        with :meth:`join`, which also averages what the parts have logged.
        """
        self._observe_all()
        self._logged_by_parts.clear()
        sizes, every = [batch.pairs for batch in self.batches], self._pairs_of_ranks()
        for i, size in enumerate(sizes):
            part = StepContext(self.engine, self.batches[i : i + 1], self.references[i : i + 1], self.step)
            last = i == len(sizes) - 1
            part._part = Part(i, last, size / sum(sizes), size * self.engine.world / every[i])
            part._observed = True
            self._logged_by_parts.append((every[i], part.metrics))
            yield part

    def _pairs_of_ranks(self) -> list[int]:
        """The pairs of each micro-batch, over all ranks."""
        sizes = [batch.pairs for batch in self.batches]
        if self.engine.world == 1:
            return sizes
        summed = self.engine.accelerator.reduce(torch.tensor(sizes, device=self.device), reduction="sum")
        return [int(size) for size in summed.tolist()]

    def join(self, losses: Sequence[StepLoss]) -> StepLoss:
        """The report of the whole step from those of its :meth:`parts`."""
        for name in {name: None for _, logged in self._logged_by_parts for name in logged}:
            values = [(pairs, logged[name]) for pairs, logged in self._logged_by_parts if name in logged]
            self.metrics[name] = sum(pairs * value for pairs, value in values) / sum(pairs for pairs, _ in values)
        pairs = self.engine.gather(PairBatch.cat([loss.pairs for loss in losses]))
        with torch.no_grad():
            return StepLoss(self.engine.objective.value(pairs), pairs, self._pair_ids())

    def _differentiate(self, push: Callable[[torch.Tensor], None], *, exchange: bool) -> StepLoss:
        """Run every micro-batch and hand ``push`` scalars whose gradients add up to the objective's; the last one
        exchanges gradients between ranks if ``exchange``.

        A plain mean over pairs needs one pass. A coupled objective over several micro-batches needs a first pass
        without gradients, because a pair's cotangent depends on all the others.
        """
        coupled, count = self.engine.objective.coupled, len(self.batches)
        ahead: list[PairBatch] | None = None
        if coupled and count > 1:
            with torch.no_grad():
                ahead = [self._forward(i) for i in range(count)]
            value, pairs, shares = self._coupled_cotangents(ahead)
        seen: list[PairBatch] = []
        values: list[torch.Tensor] = []
        for i in range(count):
            last = i == count - 1
            wanted = last or self._wanted(i)  # the last one also where it is not: ranks exchange gradients in it
            with self._sync(exchange and last), torch.set_grad_enabled(wanted):
                fields = self._forward(i)
                seen.append(in_float64(fields.detach()))
                if ahead is not None:
                    share = shares[i]
                elif coupled:
                    value, pairs, (share,) = self._coupled_cotangents([fields])
                else:
                    part, share = self._part_of_mean(seen[-1], i)
                    values.append(part)
                if wanted:
                    push(pull_back(fields, share))
        if not coupled:
            pairs = self._counted(self._gather(PairBatch.cat(seen)))
            value = self._sum_over_ranks(torch.stack(values).sum())
        return StepLoss(self._mean_over_ranks(value), pairs, self._pair_ids())

    def _part_of_mean(self, pairs: PairBatch, i: int) -> tuple[torch.Tensor, PairBatch]:
        """What micro-batch ``i`` adds to an objective that is a mean over pairs, and its cotangents."""
        objective = self.engine.objective
        if self._kept is None:
            return objective.cotangents(pairs, of=count_pairs(self.batches) * self._world)
        rows = self._kept[self._rows(i)]
        if not bool(rows.any()):
            return torch.zeros((), dtype=pairs.chosen_logps.dtype, device=rows.device), pairs.map(torch.zeros_like)
        value, cotangents = objective.cotangents(pairs.rows(rows), of=int(self._kept.sum()))
        return value, spread(cotangents, rows)

    def _coupled_cotangents(self, parts: Sequence[PairBatch]) -> tuple[torch.Tensor, PairBatch, list[PairBatch]]:
        """Value and pairs of the whole step, and this rank's cotangents cut into its micro-batches."""
        pairs = self._gather(in_float64(PairBatch.cat(parts).detach()))
        self._observe(pairs)
        pairs = self._counted(pairs)
        value, cotangents = self.engine.objective.cotangents(pairs)
        if self._kept is not None:
            cotangents = spread(cotangents, self._kept)
        return value, pairs, [cotangents.rows(self._rows(i)) for i in range(len(parts))]

    @property
    def _rank(self) -> int:
        """This rank's place among those that share the objective."""
        return int(self.engine.accelerator.process_index) if self._part is None else 0

    def _rows(self, i: int) -> slice:
        """Where the pairs of this rank's micro-batch ``i`` lie among those of the whole step."""
        start = self._rank * count_pairs(self.batches) + count_pairs(self.batches[:i])
        return slice(start, start + self.batches[i].pairs)

    def _wanted(self, i: int) -> bool:
        """Whether a pair of micro-batch ``i`` counts; on sharded weights, on any rank: they take the same passes."""
        if self._kept is None:
            return True
        wanted = self._kept[self._rows(i)].any()
        if self.engine.sharded:  # the ranks cut their shares into as many micro-batches, and not at the same pairs
            wanted = self.engine.accelerator.reduce(wanted.float(), reduction="sum") > 0
        return bool(wanted)

    def _counted(self, pairs: PairBatch) -> PairBatch:
        """Those of the whole step's pairs that count."""
        return pairs if self._kept is None else pairs.rows(self._kept)

    def _observe_all(self) -> None:
        """Let running statistics see the whole step's plain pairs before a context of something else is made."""
        if self.engine.objective.stateful and self.engine.objective.coupled and not self._observed:
            self.evaluate()

    def _observe(self, pairs: PairBatch) -> None:
        """Let running statistics move, once per step, with the pairs of all of it."""
        if self.engine.objective.coupled and not self._observed:
            self.engine.objective.observe(pairs)
            self._observed = True

    def _forward(self, i: int) -> PairBatch:
        """Pairs of micro-batch ``i`` under the policy, with the reference's fields beside them."""
        index = i if self._part is None else self._part.index
        rank = self.engine.accelerator.process_index
        with seeded(mixed(self.engine.seed, "forward", self.step, rank, index), self.device):
            pairs = self.engine.forward(self.engine.model, self.batches[i])
        pairs = with_constants(pairs, self.batches[i], self.references[i], self.engine.groups)
        return pairs if self._anchors is None else relative_to(pairs, self._anchors[i])

    @property
    def _world(self) -> int:
        """Ranks that share the objective: gradients are averaged over ranks where it wants their sum."""
        return self.engine.world if self._part is None else 1

    def _gather(self, pairs: PairBatch) -> PairBatch:
        return self.engine.gather(pairs) if self._part is None else pairs

    def _sum_over_ranks(self, value: torch.Tensor) -> torch.Tensor:
        if self._world == 1:
            return value
        return self.engine.accelerator.reduce(value, reduction="sum")

    def _mean_over_ranks(self, value: torch.Tensor) -> torch.Tensor:
        """Of a part's value, by the number of pairs; that of a whole step is the same on all ranks."""
        if self._part is None or self.engine.world == 1:
            return value
        return self.engine.accelerator.reduce(value * self._part.of_ranks, reduction="mean")

    def _sync(self, exchange: bool) -> Any:
        """Gradients are exchanged between ranks once, with the last micro-batch of the step.

        Sharded ones with every micro-batch: not to exchange them is to keep a whole gradient on every rank.
        """
        if self.engine.sharded:
            return nullcontext()
        if self._part is not None and not self._part.last:
            exchange = False
        return nullcontext() if exchange else self.engine.accelerator.no_sync(self.engine.model)

    def _pair_ids(self) -> torch.Tensor:
        ids = torch.cat([batch.pair_ids for batch in self.batches])
        ids = self.engine.accelerator.gather(ids) if self._world > 1 else ids
        return ids if self._kept is None else ids[self._kept]
