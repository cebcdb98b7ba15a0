"""Forward and backward passes over a step's micro-batches, which add up to one objective."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch

from alignzoo.contract.geometry import StepLoss
from alignzoo.contract.responses import ResponseBatch
from alignzoo.data.collate import TokenBatch
from alignzoo.distributed.seeds import mixed, seeded
from alignzoo.objective.objective import pull_back
from alignzoo.objective.views import count_rows, in_float64, relative_to, spread, structure
from alignzoo.step.engine import Engine
from alignzoo.step.token_weights import forward, weighed


@dataclass(frozen=True)
class Part:
    """Which micro-batch of a step a context of :meth:`StepContext.parts` is.

    Attributes:
        last: no other follows.
        share: its rows, divided by those of all micro-batches of this rank.
        of_ranks: its rows, divided by the mean over ranks of those of the micro-batch with this index.
    """

    index: int
    last: bool
    share: float
    of_ranks: float


@dataclass
class Seen:
    """Whether running statistics have been updated in this step; shared by all its views."""

    done: bool = False


@dataclass(frozen=True)
class Passes:
    """The micro-batches of one step under one objective.

    Attributes:
        batches: this rank's micro-batches.
        references: per micro-batch, its responses under the reference, or None each.
        step: 0-based optimizer step.
        part: when these are one micro-batch of a step.
        anchors: per micro-batch, where log-probs are measured from.
        kept: ``(P,)`` bool, the rows of the whole step that count; None for all.
    """

    engine: Engine
    batches: Sequence[TokenBatch]
    references: Sequence[ResponseBatch | None]
    step: int
    part: Part | None = None
    anchors: Sequence[ResponseBatch] | None = None
    kept: torch.Tensor | None = None
    seen: Seen = field(default_factory=Seen)

    def forward(self, i: int) -> ResponseBatch:
        """Responses of micro-batch ``i`` under the policy, with the reference's fields beside them."""
        engine, index = self.engine, i if self.part is None else self.part.index
        with seeded(mixed(engine.seed, "forward", self.step, engine.rank, index), engine.accelerator.device):
            responses, hidden = forward(engine, engine.model, self.batches[i], self.references[i])
        responses = engine.completed(responses, self.batches[i], self.references[i], self.step)
        responses = weighed(engine, responses, self.batches[i], hidden, self.step)
        return responses if self.anchors is None else relative_to(responses, self.anchors[i])

    @torch.no_grad()
    def evaluate(self) -> StepLoss:
        """The objective at the current weights, without any gradient."""
        ahead = [self.forward(i) for i in range(len(self.batches))]
        responses, _ = self._gather(in_float64(ResponseBatch.cat(ahead)))
        self._observe(responses)
        responses = self._counted(responses)
        return StepLoss(self._mean_over_ranks(self.engine.objective.value(responses)), responses, self.row_ids())

    def observe(self) -> None:
        """Let running statistics see the whole step's plain responses before passes over something else are made."""
        if self.engine.objective.observes(coupled=True) and not self.seen.done:
            self.evaluate()

    def differentiate(self, push: Callable[[torch.Tensor], None], *, exchange: bool) -> StepLoss:
        """Run every micro-batch and hand ``push`` scalars whose gradients add up to the objective's; the last one
        exchanges gradients between ranks if ``exchange``.

        A plain mean over values needs one pass. A coupled objective over several micro-batches needs a first pass
        without gradients, because a response's cotangent depends on all the others.
        """
        coupled, count = self.engine.objective.coupled, len(self.batches)
        ahead: list[ResponseBatch] | None = None
        if coupled and count > 1:
            with torch.no_grad():
                ahead = [self.forward(i) for i in range(count)]
            value, responses, shares = self._coupled_cotangents(ahead)
        totals = None if coupled else self._totals()
        seen: list[ResponseBatch] = []
        values: list[torch.Tensor] = []
        for i in range(count):
            last = i == count - 1
            wanted = last or self._wanted(i)  # the last one also where it is not: ranks exchange gradients in it
            with self._sync(exchange and last), torch.set_grad_enabled(wanted):
                fields = self.forward(i)
                seen.append(in_float64(fields.detach()))
                if ahead is not None:
                    share = shares[i]
                elif coupled:
                    value, responses, (share,) = self._coupled_cotangents([fields])
                else:
                    assert totals is not None
                    part, share = self._part_of_mean(seen[-1], i, totals)
                    values.append(part)
                if wanted:
                    push(pull_back(fields, share))
        if not coupled:
            responses = self._counted(self._gather(ResponseBatch.cat(seen))[0])
            value = self._sum_over_ranks(torch.stack(values).sum())
        return StepLoss(self._mean_over_ranks(value), responses, self.row_ids())

    def row_ids(self) -> torch.Tensor:
        """The numbers of the rows that count, ``(P,)``."""
        ids = torch.cat([batch.row_ids for batch in self.batches])
        ids = self.engine.accelerator.gather(ids) if self.world > 1 else ids
        return ids if self.kept is None else ids[self.kept]

    @property
    def world(self) -> int:
        """Ranks that share the objective: gradients are averaged over ranks where it wants their sum."""
        return self.engine.world if self.part is None else 1

    def _totals(self) -> list[int]:
        """How many values each term has in the step."""
        objective, structures = self.engine.objective, [structure(batch) for batch in self.batches]
        if self.kept is not None:
            everything, _ = self._gather(ResponseBatch.cat(structures))
            return objective.counts(everything.of_prompts(self.kept))
        here = [sum(counts) for counts in zip(*(objective.counts(s) for s in structures), strict=True)]
        if all(batch.paired for batch in self.batches):  # the ranks have as many rows each
            return [self.world * count for count in here]
        return self.engine.added_up(here) if self.world > 1 else here

    def _part_of_mean(
        self, responses: ResponseBatch, i: int, totals: Sequence[int]
    ) -> tuple[torch.Tensor, ResponseBatch]:
        """What micro-batch ``i`` adds to an objective that is a mean over values, and its cotangents."""
        objective = self.engine.objective
        if self.kept is None:
            return objective.cotangents(responses, of=totals)
        kept = self.kept[self._rows(i)]
        if not bool(kept.any()):
            return responses.logps.new_zeros(()), responses.map(torch.zeros_like)
        value, cotangents = objective.cotangents(responses.of_prompts(kept), of=totals)
        return value, spread(cotangents, kept[responses.prompt])

    def _coupled_cotangents(
        self, ahead: Sequence[ResponseBatch]
    ) -> tuple[torch.Tensor, ResponseBatch, list[ResponseBatch]]:
        """Value and responses of the whole step, and this rank's cotangents cut into its micro-batches."""
        everything, start = self._gather(in_float64(ResponseBatch.cat(ahead).detach()))
        self._observe(everything)
        responses = self._counted(everything)
        value, cotangents = self.engine.objective.cotangents(responses)
        if self.kept is not None:
            cotangents = spread(cotangents, self.kept[everything.prompt])
        shares = []
        for part in ahead:
            shares.append(cotangents.rows(slice(start, start + len(part))))
            start += len(part)
        return value, responses, shares

    def _rows(self, i: int) -> slice:
        """Where the rows of this rank's micro-batch ``i`` lie among those of the whole step."""
        rank = self.engine.rank if self.part is None else 0
        start = rank * count_rows(self.batches) + count_rows(self.batches[:i])
        return slice(start, start + self.batches[i].rows)

    def _wanted(self, i: int) -> bool:
        """Whether a row of micro-batch ``i`` counts; on sharded weights, on any rank: they take the same passes."""
        if self.kept is None:
            return True
        wanted = self.kept[self._rows(i)].any()
        if self.engine.sharded:  # the ranks cut their shares into as many micro-batches, and not at the same rows
            wanted = self.engine.accelerator.reduce(wanted.float(), reduction="sum") > 0
        return bool(wanted)

    def _counted(self, responses: ResponseBatch) -> ResponseBatch:
        """Those of the whole step's responses that count."""
        return responses if self.kept is None else responses.of_prompts(self.kept)

    def _observe(self, responses: ResponseBatch) -> None:
        """Let running statistics of batch-coupled methods move, once per step, with the responses of all of it."""
        if not self.seen.done:
            self.engine.objective.observe(responses, coupled=True)
            self.seen.done = True

    def _gather(self, responses: ResponseBatch) -> tuple[ResponseBatch, int]:
        return self.engine.gather(responses, count_rows(self.batches)) if self.part is None else (responses, 0)

    def _sum_over_ranks(self, value: torch.Tensor) -> torch.Tensor:
        if self.world == 1:
            return value
        summed: torch.Tensor = self.engine.accelerator.reduce(value, reduction="sum")
        return summed

    def _mean_over_ranks(self, value: torch.Tensor) -> torch.Tensor:
        """Of a part's value, by the number of rows; that of a whole step is the same on all ranks."""
        if self.part is None or self.engine.world == 1:
            return value
        mean: torch.Tensor = self.engine.accelerator.reduce(value * self.part.of_ranks, reduction="mean")
        return mean

    def _sync(self, exchange: bool) -> Any:
        """Gradients are exchanged between ranks once, with the last micro-batch of the step.

        Sharded ones are exchanged with every micro-batch: otherwise every rank would keep a whole gradient.
        """
        if self.engine.sharded:
            return nullcontext()
        if self.part is not None and not self.part.last:
            exchange = False
        return nullcontext() if exchange else self.engine.accelerator.no_sync(self.engine.model)
