"""A packed row as sequences of queries, each with its own keys, for variable-length attention."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from alignzoo.data.pack import Segment


@dataclass(frozen=True, eq=False)
class Sequences:
    """A row of T tokens as N sequences in its order: each prompt with its first response, and each further response.

    A sequence's keys are the prompt and the response that its queries end with, so causal attention aligned at the ends
    of both (as FlashAttention's) is that of the segment.

    Attributes:
        query_starts: ``(N + 1,)`` int32, where each sequence's queries begin in the row, and T.
        key_starts: ``(N + 1,)`` int32, where each sequence's keys begin among all M, and M.
        keys: ``(M,)`` int64, each key's position in the row; None if these are the row itself.
        most_queries, most_keys: of one sequence.
    """

    query_starts: Tensor
    key_starts: Tensor
    keys: Tensor | None
    most_queries: int
    most_keys: int

    @classmethod
    def of(cls, segments: Sequence[Segment]) -> Sequences:
        """Those of a packed row, on the host."""
        queries, counts, keys = list[int](), list[int](), list[np.ndarray]()
        for segment in segments:
            prompt = segment.prompt_place()
            for j, response in enumerate(segment.places()):
                start = response.start if j else prompt.start
                queries.append(response.stop - start)
                counts.append(segment.prompt + response.stop - response.start)
                keys += [np.arange(prompt.start, prompt.stop), np.arange(response.start, response.stop)]
        shared = any(len(segment.responses) > 1 for segment in segments)
        return cls(
            torch.tensor([*accumulate(queries, initial=0)], dtype=torch.int32),
            torch.tensor([*accumulate(counts, initial=0)], dtype=torch.int32),
            torch.from_numpy(np.concatenate(keys)) if shared else None,
            max(queries),
            max(counts),
        )

    def map(self, done: Callable[[Tensor], Tensor]) -> Sequences:
        """The same with every tensor replaced."""
        tensors = {"query_starts": self.query_starts, "key_starts": self.key_starts, "keys": self.keys}
        changed: dict[str, Any] = {name: done(tensor) for name, tensor in tensors.items() if tensor is not None}
        return replace(self, **changed)
