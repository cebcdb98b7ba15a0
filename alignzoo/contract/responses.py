"""``ResponseBatch``: the numbers per response through which the model enters every objective.

A row of data is a prompt with k ≥ 1 responses. The responses of a prompt are adjacent, best first if they are ordered;
a pair is two of them, and :class:`~alignzoo.contract.pairs.PairBatch` is a view of a batch by two index tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from alignzoo.contract.pairs import PairBatch
from alignzoo.lazy import F, torch

DIFFERENTIABLE = ("logps", "token_logps", "kls", "embedding_norms")
"""The fields that depend on the policy; all others are constants of the step."""
POLICY, KL = 0, 1
"""``roles``: a response to learn from; a response to another prompt, for KTO's estimate of the KL."""
_SIDED = (
    "logps",
    "lengths",
    "token_logps",
    "token_mask",
    "token_weights",
    "guide_tokens",
    "contrast_tokens",
    "scores",
    "safe",
    "kls",
    "entropies",
    "collisions",
    "embedding_norms",
)
"""Fields that a pair has for both sides, some of them for the reference as well."""


@dataclass(frozen=True)
class ResponseBatch:
    """Log-probs of R responses. Tensors of shape ``(R,)``, fp32 or fp64, unless said otherwise.

    Attributes:
        logps: nats, summed over the response's tokens, under the policy.
        lengths: response tokens, EOS counted.
        prompt: int64, index of the response's prompt in the batch: 0, 1, …, non-decreasing.
        ref_logps: the same sums under the frozen reference, if a method needs it.
        labels: int64, +1 desirable, −1 undesirable, 0 unknown.
        ranks: int64, rank among the prompt's responses, 0 is the best; −1 if unordered.
        roles: int64, :data:`POLICY` or :data:`KL`; the KL responses of a prompt follow its own. None: all are POLICY.
        scores: external rewards, higher is better.
        weights: the data's weight of the response; 1 if it has none.
        groups: int64 group index of the prompt.
        token_logps, ref_token_logps: ``(R, T)`` per response token, 0 where the mask is 0.
        token_mask: ``(R, T)``, 1 for a response token.
        token_weights: ``(R, T)`` constants, what the run's aggregation made of the step's tokens
            (:meth:`~alignzoo.contract.aggregation.Aggregation.token_weights`).
        guide_tokens, contrast_tokens: ``(R, T)`` log-probs of the tokens under the frozen models ``--guide`` and
            ``--contrast``, 0 where the mask is 0.
        safe: 1 for a safe response, 0 for an unsafe one, as labelled in the data.
        kls: Σ_t KL(π_ref ‖ π) over the response's tokens, in nats; differentiable in the policy.
        ref_entropies: Σ_t H(π_ref)/log V over the response's tokens: at most their number.
        collisions: Σ_t log Σ_v π(v)² over the response's tokens, in nats, detached.
        embedding_norms: ‖∂ log π(y|x) / ∂ input embeddings‖², over prompt and response; differentiable in the policy.
        old_logps: summed log-probs under the policy that generated the response.
        progress: the share of the run's optimizer steps taken before this one; a number.
        aggregation: the aggregation that produced ``logps`` and ``ref_logps``; None for sums.
        paired: every prompt has two responses, the better one first; known without reading tensors.
    """

    logps: torch.Tensor
    lengths: torch.Tensor
    prompt: torch.Tensor
    ref_logps: torch.Tensor | None = None
    labels: torch.Tensor | None = None
    ranks: torch.Tensor | None = None
    roles: torch.Tensor | None = None
    scores: torch.Tensor | None = None
    weights: torch.Tensor | None = None
    groups: torch.Tensor | None = None
    token_logps: torch.Tensor | None = None
    ref_token_logps: torch.Tensor | None = None
    token_mask: torch.Tensor | None = None
    token_weights: torch.Tensor | None = None
    guide_tokens: torch.Tensor | None = None
    contrast_tokens: torch.Tensor | None = None
    safe: torch.Tensor | None = None
    kls: torch.Tensor | None = None
    ref_entropies: torch.Tensor | None = None
    collisions: torch.Tensor | None = None
    embedding_norms: torch.Tensor | None = None
    old_logps: torch.Tensor | None = None
    aggregation: str | None = None
    progress: float = 0.0
    paired: bool = False

    def __len__(self) -> int:
        return self.logps.shape[0]

    def log_ratios(self) -> torch.Tensor:
        """``(R,)``: log π − log π_ref, in nats.

        Raises:
            ValueError: there is no reference; the method's card must declare that it needs one.
        """
        if self.ref_logps is None:
            raise ValueError("no reference log-probs: the method's card must declare needs={'reference'}")
        return self.logps - self.ref_logps

    def present(self) -> dict[str, torch.Tensor]:
        """The tensors that are present, by name."""
        found = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: value for name, value in found.items() if isinstance(value, torch.Tensor)}

    def map(self, fn: Callable[[torch.Tensor], torch.Tensor]) -> ResponseBatch:
        """``fn`` applied to every tensor that is present."""
        changed: dict[str, Any] = {name: fn(value) for name, value in self.present().items()}
        return replace(self, **changed)

    def detach(self) -> ResponseBatch:
        return self.map(lambda value: value.detach())

    def to(self, *args: Any, dtype: torch.dtype | None = None) -> ResponseBatch:
        """Moved (``to(device)``) and, for floating-point fields only, cast (``to(dtype=...)``)."""

        def move(value: torch.Tensor) -> torch.Tensor:
            value = value.to(*args) if args else value
            return value.to(dtype) if dtype is not None and value.is_floating_point() else value

        return self.map(move)

    def rows(self, index: slice | torch.Tensor) -> ResponseBatch:
        """The responses at ``index`` (a slice, a mask or an index tensor); their prompts keep their numbers."""
        return replace(self.map(lambda value: value[index]), paired=False)

    def of_prompts(self, kept: torch.Tensor) -> ResponseBatch:
        """The responses of the prompts where ``kept`` ``(P,)`` is True, these prompts numbered from 0."""
        found = self.map(lambda value: value[kept[self.prompt]])
        return replace(found, prompt=(kept.cumsum(0) - 1)[found.prompt])

    def shortest(self) -> torch.Tensor:
        """``(R,)``: the tokens of the shortest response of the same prompt and role."""
        place = 2 * self._numbered() + (0 if self.roles is None else self.roles)
        least = self.lengths.new_full((2 * len(self),), torch.inf)
        return least.scatter_reduce(0, place, self.lengths, "amin")[place]

    def rivals(self) -> list[list[int]]:
        """The indices of the responses of the same prompt and role, where there are at least two."""
        found: dict[tuple[int, int], list[int]] = {}
        roles = [POLICY] * len(self) if self.roles is None else self.roles.tolist()
        for i, of in enumerate(zip(self._numbered().tolist(), roles, strict=True)):
            found.setdefault(of, []).append(i)
        return [places for places in found.values() if len(places) > 1]

    def of_role(self, role: int) -> ResponseBatch:
        """The responses of one role; the batch itself if all have it."""
        if self.roles is None:
            return self if role == POLICY else self.rows(slice(0, 0))
        return self.rows(self.roles == role)

    def swap(self) -> ResponseBatch:
        """The same responses with the opposite labels and the reverse order of preference."""
        changed: dict[str, Any] = {"paired": False}
        if self.labels is not None:
            changed["labels"] = -self.labels
        if self.ranks is not None:
            of = self._numbered()
            last = torch.full_like(self.ranks, -1).scatter_reduce(0, of, self.ranks, "amax")[of]
            changed["ranks"] = torch.where(self.ranks < 0, self.ranks, last - self.ranks)
        return replace(self, **changed)

    def lists(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Indices of the policy's responses to each prompt, best first.

        Returns:
            indices ``(P, K)`` int64 into this batch, 0 where the mask is False, and that mask ``(P, K)``; K is the
            length of the longest list.
        """
        order = self.prompt if self.ranks is None else self.prompt * len(self) + self.ranks
        places = torch.argsort(order, stable=True)
        if self.roles is not None:
            places = places[self.roles[places] == POLICY]
        counts = torch.unique_consecutive(self.prompt[places], return_counts=True)[1]
        mask = torch.arange(int(counts.max()), device=counts.device) < counts[:, None]
        return torch.zeros_like(mask, dtype=torch.long).masked_scatter(mask, places), mask

    def pair_places(self) -> tuple[torch.Tensor | slice, torch.Tensor | slice]:
        """Indices of the chosen and the rejected response of each pair: every response against each worse one of
        its prompt. With two responses to every prompt, that is one pair per prompt, in order."""
        if self.paired:
            return slice(0, None, 2), slice(1, None, 2)
        if self.ranks is None:
            raise ValueError("these responses are unordered, so they form no pairs")
        of, every = self._numbered(), torch.arange(len(self), device=self.prompt.device)
        sizes = torch.zeros_like(of).index_add(0, of, torch.ones_like(of))  # of each prompt
        starts, with_it = sizes.cumsum(0) - sizes, sizes[of]
        # Each response with all of its prompt: as many couples as these are, not R².
        first = every.repeat_interleave(with_it)
        within = torch.arange(len(first), device=first.device) - (with_it.cumsum(0) - with_it)[first]
        second = starts[of][first] + within
        better = (self.ranks[first] >= 0) & (self.ranks[first] < self.ranks[second])
        return first[better], second[better]

    def _numbered(self) -> torch.Tensor:
        """``(R,)``: the prompts of these responses, numbered from 0 without a gap."""
        another = torch.ones_like(self.prompt)
        another[1:] = self.prompt[1:] != self.prompt[:-1]
        return another.cumsum(0) - 1

    def chosen_places(self) -> torch.Tensor | slice:
        """Indices of the responses to imitate: the best of each ordered prompt; of the others, those desirable or
        unlabelled."""
        if self.paired:
            return slice(0, None, 2)
        wanted = torch.ones_like(self.prompt, dtype=torch.bool) if self.labels is None else self.labels >= 0
        if self.ranks is not None:
            wanted = torch.where(self.ranks < 0, wanted, self.ranks == 0)
        return wanted if self.roles is None else wanted & (self.roles == POLICY)

    def pairs(self) -> PairBatch:
        """A view of the batch as pairs, see :meth:`pair_places`."""
        chosen, rejected = self.pair_places()
        found: dict[str, Any] = {"aggregation": self.aggregation, "progress": self.progress}
        for name, value in self.present().items():
            prefix, rest = ("ref_", name.removeprefix("ref_")) if name.startswith("ref_") else ("", name)
            if rest in _SIDED:
                found[f"{prefix}chosen_{rest}"] = value[chosen]
                found[f"{prefix}rejected_{rest}"] = value[rejected]
        if self.groups is not None:
            found["groups"] = self.groups[chosen]
        return PairBatch(**found)

    @staticmethod
    def of_pairs(pairs: PairBatch) -> ResponseBatch:
        """The 2B responses of B pairs, each pair's chosen one first."""
        found: dict[str, Any] = {"aggregation": pairs.aggregation, "progress": pairs.progress}
        for name, value in pairs.present().items():
            if "chosen" in name:
                other = getattr(pairs, name.replace("chosen", "rejected"))
                found[name.replace("chosen_", "")] = torch.stack([value, other], 1).flatten(0, 1)
        count, device = len(pairs), pairs.chosen_logps.device
        if pairs.groups is not None:
            found["groups"] = pairs.groups.repeat_interleave(2)
        return ResponseBatch(
            prompt=torch.arange(count, device=device).repeat_interleave(2),
            labels=torch.tensor([1, -1], device=device).repeat(count),
            ranks=torch.tensor([0, 1], device=device).repeat(count),
            paired=True,
            **found,
        )

    @staticmethod
    def cat(batches: Sequence[ResponseBatch]) -> ResponseBatch:
        """One batch of all responses in order, prompts renumbered; token fields are zero-padded to the longest T."""
        if len(batches) == 1:
            return batches[0]
        joined: dict[str, Any] = {
            "aggregation": batches[0].aggregation,
            "progress": batches[0].progress,
            "paired": all(batch.paired for batch in batches),
        }
        for name in batches[0].present():
            parts = [getattr(batch, name) for batch in batches]
            if name == "prompt":
                parts = _numbered_on(parts)
            if parts[0].dim() == 2:
                width = max(part.shape[1] for part in parts)
                parts = [F.pad(part, (0, width - part.shape[1])) for part in parts]
            joined[name] = torch.cat(parts)
        return ResponseBatch(**joined)


def _numbered_on(prompts: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Concatenated prompt numbers, without a device synchronisation."""
    numbered, first = list[torch.Tensor](), torch.zeros((), dtype=torch.long, device=prompts[0].device)
    for prompt in prompts:
        numbered.append(prompt + first)
        first = numbered[-1][-1] + 1
    return numbered
