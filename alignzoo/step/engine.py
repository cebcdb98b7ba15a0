"""The constants of a run's steps: model, forward, objective, and the ranks that share a step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch

from alignzoo.contract.responses import ResponseBatch
from alignzoo.distributed.sharding import is_shard
from alignzoo.logprobs.logps import Forward
from alignzoo.objective.objective import Objective

if TYPE_CHECKING:
    from accelerate import Accelerator


@dataclass(frozen=True)
class Engine:
    """The constants of a run's steps; ``groups`` numbers the data's group names."""

    model: torch.nn.Module
    forward: Forward
    objective: Objective
    accelerator: Accelerator
    seed: int
    groups: Mapping[str, int] = field(default_factory=dict)

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
