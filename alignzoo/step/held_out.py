"""The objective and the rewards on held-out rows."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import TypeVar

import torch

from alignzoo.base.memo import Memo
from alignzoo.contract.responses import ResponseBatch
from alignzoo.data.collate import TokenBatch
from alignzoo.errors import NonFiniteLossError
from alignzoo.logprobs.statistics import Statistics
from alignzoo.logprobs.teacher import teacher_of
from alignzoo.model.identity import outputs_key
from alignzoo.reference.cached import CachedReference
from alignzoo.reference.frozen import ReferenceForward
from alignzoo.reference.moving import MovingReference
from alignzoo.report import Reporter
from alignzoo.step.engine import Engine
from alignzoo.step.metrics import name_rows, non_finite, reward_metrics
from alignzoo.step.token_weights import forward, weighed

_Part = TypeVar("_Part")
_Responses = tuple[ResponseBatch, torch.Tensor | None]


class HeldOut:
    """Held-out rows, divided over the ranks; their reference log-probs are computed once.

    Args:
        batches: the micro-batches of *all* ranks, the same list on each.
        apart: ids of the rows to report apart, which share no batch with the others.
        memo: what earlier runs of this process have left: responses before training.
        way: how the engine's forward computes, which its responses follow from.
        starts_there: before the first step, the policy is the reference.
    """

    def __init__(
        self,
        engine: Engine,
        reference: ReferenceForward | None,
        batches: Sequence[TokenBatch],
        report: Reporter,
        *,
        apart: Collection[int] = (),
        memo: Memo | None = None,
        way: str = "",
        starts_there: bool = False,
    ) -> None:
        self._starts_there = starts_there
        self._memo = memo or Memo()
        self._way = way
        self._engine = engine
        self._reference = reference
        self._report = report
        self._apart = frozenset(apart)
        world, rank = engine.world, engine.accelerator.process_index
        self._mine = [batch.to(engine.accelerator.device) for batch in batches[rank::world]]
        self._references: dict[int, ResponseBatch] = {}
        # A rank with fewer batches must still take part in gathering sharded weights.
        rounds = -(-len(batches) // world) if engine.sharded else len(self._mine)
        self._idle = [batches[0].to(engine.accelerator.device)] * (rounds - len(self._mine))

    @torch.no_grad()
    def evaluate(self, *, step: int = 0) -> dict[str, float]:
        """``eval/loss`` (the objective over all held-out rows), ``eval/rewards/…``, ``eval/logps/…`` and the methods'
        own metrics; with rows apart, the same of these (``eval/out/…``) and of the others (``eval/in/…``).

        Before the first step, the figures come from the reference's table if the policy is the reference and the table
        has everything they need.

        Raises:
            NonFiniteLossError: ``eval/loss`` is NaN or infinite after ``step`` optimizer steps.
        """
        model = self._engine.accelerator.unwrap_model(self._engine.model)
        training = model.training
        model.eval()
        try:
            with self._report.progress(len(self._mine), "evaluating", unit="batch") as bar:
                parts = []
                tabled = step == 0 and self._in_table()
                known = self._known(model) if step == 0 and not tabled else None
                for i, batch in enumerate((*self._mine, *(() if tabled else self._idle))):
                    reference = self._of_reference(i, batch)
                    if tabled:
                        assert reference is not None
                        responses, hidden = reference, None
                    elif known is None or i not in known:
                        responses, hidden = forward(self._engine, model, batch, reference)
                        if known is not None:
                            known[i] = responses, hidden
                    else:
                        responses, hidden = known[i]
                    if i >= len(self._mine):
                        continue
                    responses = self._engine.completed(responses, batch, reference, step)
                    responses = weighed(self._engine, responses, batch, hidden, None)
                    parts.append(responses.to("cpu", dtype=torch.float64))
                    bar.advance()
        finally:
            model.train(training)
        gathered = self._over_ranks(parts)
        everyone = ResponseBatch.cat(gathered)
        figures = self._figures(everyone)
        if not math.isfinite(figures["loss"]):
            ids = torch.cat(self._over_ranks([batch.row_ids.cpu() for batch in self._mine]))
            raise NonFiniteLossError(
                f"the objective on held-out rows is {figures['loss']} after step {step}; "
                f"rows {name_rows(non_finite(everyone, ids) or ids.tolist())}",
                hint="try a lower --lr, or check the model and those held-out rows",
            )
        if self._apart:
            outside = self._over_ranks([int(batch.row_ids[0]) in self._apart for batch in self._mine])
            for place, is_out in (("in", False), ("out", True)):
                some = [part for part, out in zip(gathered, outside, strict=True) if out is is_out]
                if some:
                    of_some = self._figures(ResponseBatch.cat(some))
                    figures |= {f"{place}/{name}": value for name, value in of_some.items()}
        return {f"eval/{name}": value for name, value in figures.items()}

    def _figures(self, responses: ResponseBatch) -> dict[str, float]:
        """The objective over these responses, their rewards, and the methods' own metrics."""
        objective = self._engine.objective
        return {
            "loss": float(objective.value(responses)),
            **reward_metrics(objective.preference, responses),
            **objective.metrics(responses),
        }

    def _in_table(self) -> bool:
        """Whether the reference's table has what an evaluation of the untrained policy reads."""
        weighing = self._engine.objective.weighing
        log_probs_only = self._engine.statistics == Statistics() and not (weighing is not None and weighing.hidden)
        return self._starts_there and isinstance(self._reference, CachedReference) and log_probs_only

    def _known(self, model: torch.nn.Module) -> dict[int, _Responses] | None:
        """What earlier runs have computed of these batches with this untrained model, by batch; None where that is not
        shared."""
        if not self._memo.limit:  # nothing would read them again
            return None
        plain = self._engine.statistics == Statistics() and self._engine.objective.weighing is None
        outputs = outputs_key(model) if plain and self._engine.world == 1 else None
        if outputs is None:
            return None
        content = tuple(batch.content() for batch in (*self._mine, *self._idle))
        key = (outputs, self._way, "token-logps" in self._engine.needs, content)
        return self._memo.get("held-out responses", key, dict)

    def _of_reference(self, i: int, batch: TokenBatch) -> ResponseBatch | None:
        """Kept for later evaluations, unless the reference moves, or it holds the inputs of the reference's head: these
        would fill the memory of the device."""
        if self._reference is None:
            return None
        found = self._references.get(i)
        if found is None:
            found = self._reference(batch)
            if teacher_of(found) is None and not isinstance(self._reference, MovingReference):
                self._references[i] = found
        return found

    def _over_ranks(self, parts: list[_Part]) -> list[_Part]:
        if self._engine.world == 1:
            return parts
        gathered: list[list[_Part] | None] = [None] * self._engine.world
        torch.distributed.all_gather_object(gathered, parts)
        return [part for rank in gathered if rank for part in rank]
