"""The constants of a run's steps: model, forward, objective, and the ranks that share a step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

import torch

from alignzoo.contract.card import Need
from alignzoo.contract.responses import ResponseBatch
from alignzoo.data.collate import TokenBatch
from alignzoo.distributed.sharding import is_shard
from alignzoo.logprobs.logps import Forward
from alignzoo.logprobs.statistics import NOTHING, Statistics
from alignzoo.logprobs.teacher import teacher_of
from alignzoo.objective.objective import Objective
from alignzoo.objective.views import with_constants

if TYPE_CHECKING:
    from accelerate import Accelerator


@dataclass(frozen=True)
class Engine:
    """The constants of a run's steps.

    Attributes:
        groups: numbers the data's group names.
        needs: of the run's methods.
        steps: optimizer steps of the whole run; None outside a run.
    """

    model: torch.nn.Module
    forward: Forward
    objective: Objective
    accelerator: Accelerator
    seed: int
    groups: Mapping[str, int] = field(default_factory=dict)
    needs: frozenset[Need] = frozenset()
    steps: int | None = None

    @property
    def world(self) -> int:
        return int(self.accelerator.num_processes)

    @property
    def rank(self) -> int:
        return int(self.accelerator.process_index)

    @property
    def sharded(self) -> bool:
        """Whether every rank holds only a part of each weight."""
        return is_shard(self.model)

    @cached_property
    def statistics(self) -> Statistics:
        """What the methods read beside log-probs."""
        return Statistics.of(self.needs)

    def responses(self, model: torch.nn.Module, batch: TokenBatch, reference: ResponseBatch | None) -> ResponseBatch:
        """A batch's responses under the policy ``model``, with all that depends on it.

        Args:
            reference: the same responses under the reference, if a method reads it.
        """
        ask = self.statistics.of_policy(teacher_of(reference))
        return self.forward(model, batch) if ask == NOTHING else self.forward(model, batch, ask)

    def completed(
        self, responses: ResponseBatch, batch: TokenBatch, reference: ResponseBatch | None, step: int
    ) -> ResponseBatch:
        """:meth:`responses` with the constants of the 0-based optimizer step ``step``."""
        progress = step / self.steps if self.steps else 0.0
        safe = "safety" in self.needs
        return with_constants(responses, batch, reference, self.groups, safe=safe, progress=progress)

    def gather(self, responses: ResponseBatch, rows: int) -> tuple[ResponseBatch, int]:
        """The ranks' responses as one batch, in rank order, and where those of this rank begin.

        Args:
            rows: prompts of this rank, as many as each of the others has; their responses may be more or fewer.
        """
        if self.world == 1:
            return responses, 0
        responses = replace(responses, prompt=responses.prompt + self.rank * rows)
        sizes = [len(responses)] * self.world if responses.paired else self._sizes(len(responses))

        def over_ranks(value: torch.Tensor) -> torch.Tensor:
            for dim in range(value.dim()):
                if dim > 0 or len(set(sizes)) > 1:
                    value = self.accelerator.pad_across_processes(value, dim=dim)
            every = self.accelerator.gather(value.contiguous())
            if len(set(sizes)) == 1:
                return every
            longest = max(sizes)
            return torch.cat([every[r * longest : r * longest + size] for r, size in enumerate(sizes)])

        return responses.map(over_ranks), sum(sizes[: self.rank])

    def added_up(self, numbers: Sequence[int]) -> list[int]:
        """Each number, summed over ranks."""
        if self.world == 1:
            return list(numbers)
        here = torch.tensor(numbers, device=self.accelerator.device)
        return [int(number) for number in self.accelerator.reduce(here, reduction="sum").tolist()]

    def _sizes(self, size: int) -> list[int]:
        """The responses of each rank."""
        return [int(n) for n in self.accelerator.gather(torch.tensor([size], device=self.accelerator.device)).tolist()]
