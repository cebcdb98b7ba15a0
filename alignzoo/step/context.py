"""A geometry controller's interface to an optimizer step with all its micro-batches.

Every method evaluates the *whole* step's objective, over all micro-batches and ranks, at the current weights; on the
same data, with the same dropout masks, and with reference log-probs computed before any perturbation.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import replace

import torch

from alignzoo.contract.geometry import StepLoss
from alignzoo.contract.responses import ResponseBatch
from alignzoo.data.collate import TokenBatch
from alignzoo.distributed.seeds import mixed
from alignzoo.distributed.sharding import reshard
from alignzoo.distributed.shards import is_sharded
from alignzoo.geometry.outputs import Axes, output_axes
from alignzoo.geometry.perturb import perturbed
from alignzoo.geometry.survival import Survival, dtypes_in_forward
from alignzoo.step.engine import Engine
from alignzoo.step.passes import Part, Passes, Seen
from alignzoo.step.setup import SetupContext

__all__ = ["Engine", "SetupContext", "StepContext"]


class StepContext:
    """A controller's view of one optimizer step.

    Args:
        engine: model, objective and accelerator of the run.
        batches: this rank's micro-batches.
        references: per micro-batch, its responses under the reference (or None each).
        step: 0-based optimizer step.
    """

    def __init__(
        self, engine: Engine, batches: Sequence[TokenBatch], references: Sequence[ResponseBatch | None], step: int
    ) -> None:
        self.engine = engine
        self.batches = batches
        self.references = references
        self.step = step
        self.metrics: dict[str, float] = {}
        self._passes = Passes(engine, batches, references, step)
        self._logged_by_parts: list[tuple[int, dict[str, float]]] = []  # with their numbers of rows

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
        rank = self.engine.rank if per_rank else 0
        part = None if self._passes.part is None else self._passes.part.index
        return torch.Generator().manual_seed(mixed(self.engine.seed, purpose, self.step, rank, part))

    def backward(self) -> StepLoss:
        """Add the objective's gradient to ``.grad`` of every trainable parameter, averaged over ranks as needed."""

        part = self._passes.part
        scale = float(self.engine.world) if part is None else part.share

        def push(scalar: torch.Tensor) -> None:
            self.engine.accelerator.backward(scalar * scale)

        return self._passes.differentiate(push, exchange=True)

    def gradient(self, tensors: Sequence[torch.Tensor]) -> tuple[StepLoss, list[torch.Tensor]]:
        """The objective's gradient with respect to ``tensors`` only; no ``.grad`` is touched.

        ``tensors`` are leaves the model reads (weights, or the deltas of side branches), the same on all ranks.
        """

        part = self._passes.part
        scale = float(self.engine.world) if part is None else part.of_ranks

        def push(scalar: torch.Tensor) -> None:
            if scalar.requires_grad:  # the model reads any of the tensors
                (scalar * scale).backward()

        with self._apart(tensors):
            loss = self._passes.differentiate(push, exchange=False)
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
        return self._passes.evaluate()

    def by_row(self, loss: StepLoss) -> torch.Tensor:
        """``(P,)``: the mean value of each row's pairs or responses under the preference loss and the wrappers' terms
        for single values, in the order of :attr:`StepLoss.row_ids`."""
        with torch.no_grad():
            return self.engine.objective.by_prompt(loss.responses)

    def anchored(self) -> StepContext:
        """This step with every log-prob relative to its value at the current weights.

        The objective of the returned context sees differences from these values as the policy's log-probs, and a
        reference of 0: the anchor replaces it. Running statistics are those of the plain log-probs.
        """
        self._passes.observe()
        with torch.no_grad():
            return self._with(anchors=[self._passes.forward(i) for i in range(len(self.batches))])

    def only(self, kept: torch.Tensor) -> StepContext:
        """This step with the objective of a subset of its rows, in any micro-batches and on any ranks.

        Args:
            kept: ``(P,)`` bool in the order of :attr:`StepLoss.row_ids`, the same on all ranks, at least one True.
        """
        self._passes.observe()
        return self._with(kept=kept)

    def _with(self, **changed: object) -> StepContext:
        other = copy(self)
        other._passes = replace(self._passes, **changed)  # type: ignore[arg-type]
        return other

    def parts(self) -> Iterator[StepContext]:
        """One context per micro-batch, whose objective is that micro-batch's alone on each rank.

        Values and gradients are averaged over ranks, and what :meth:`backward` adds up is the average over
        micro-batches, in both by the number of rows: of a plain mean over rows, it is the step's gradient. Of other
        objectives it depends on how the step is cut; this exists to reproduce code that works so. Join the reports
        with :meth:`join`, which also averages what the parts have logged.
        """
        self._passes.observe()
        self._logged_by_parts.clear()
        sizes = [batch.rows for batch in self.batches]
        every = self.engine.added_up(sizes)
        for i, size in enumerate(sizes):
            batches, references = self.batches[i : i + 1], self.references[i : i + 1]
            part = StepContext(self.engine, batches, references, self.step)
            place = Part(i, i == len(sizes) - 1, size / sum(sizes), size * self.engine.world / every[i])
            part._passes = replace(part._passes, part=place, seen=Seen(True))
            self._logged_by_parts.append((every[i], part.metrics))
            yield part

    def join(self, losses: Sequence[StepLoss]) -> StepLoss:
        """The whole step's report, from those of its :meth:`parts`."""
        for name in {name: None for _, logged in self._logged_by_parts for name in logged}:
            values = [(rows, logged[name]) for rows, logged in self._logged_by_parts if name in logged]
            self.metrics[name] = sum(rows * value for rows, value in values) / sum(rows for rows, _ in values)
        rows = sum(len(loss.row_ids) for loss in losses)
        responses, _ = self.engine.gather(ResponseBatch.cat([loss.responses for loss in losses]), rows)
        with torch.no_grad():
            return StepLoss(self.engine.objective.value(responses), responses, self._passes.row_ids())
