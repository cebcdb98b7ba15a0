"""``PairBatch``: the numbers per pair that a loss on pairs reads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from alignzoo.lazy import F, torch

DIFFERENTIABLE = (
    "chosen_logps",
    "rejected_logps",
    "chosen_token_logps",
    "rejected_token_logps",
    "chosen_kls",
    "rejected_kls",
    "chosen_embedding_norms",
    "rejected_embedding_norms",
)
"""The fields that depend on the policy; all others are constants of the step."""


@dataclass(frozen=True)
class PairBatch:
    """Log-probs of B preference pairs. Tensors of shape ``(B,)``, fp32 or fp64, unless said otherwise.

    Attributes:
        chosen_logps, rejected_logps: nats, summed over the response's tokens, under the policy.
        chosen_lengths, rejected_lengths: response tokens, EOS counted.
        ref_chosen_logps, ref_rejected_logps: the same sums under the frozen reference, if a method needs it.
        chosen_token_logps, rejected_token_logps: ``(B, T)`` per response token, 0 where the mask is 0.
        ref_chosen_token_logps, ref_rejected_token_logps: ``(B, T)`` under the reference.
        chosen_token_mask, rejected_token_mask: ``(B, T)``, 1 for a response token.
        chosen_token_weights, rejected_token_weights: ``(B, T)`` constants of the run's aggregation.
        chosen_guide_tokens, rejected_guide_tokens: ``(B, T)`` log-probs under the frozen model ``--guide``.
        chosen_contrast_tokens, rejected_contrast_tokens: ``(B, T)`` log-probs under the frozen model ``--contrast``.
        chosen_scores, rejected_scores: external rewards, higher is better.
        chosen_safe, rejected_safe: 1 for a safe response, 0 for an unsafe one, as labelled in the data.
        chosen_kls, rejected_kls: Σ_t KL(π_ref ‖ π), in nats; differentiable in the policy.
        ref_chosen_entropies, ref_rejected_entropies: Σ_t H(π_ref)/log V.
        chosen_collisions, rejected_collisions: Σ_t log Σ_v π(v)², in nats, detached.
        chosen_embedding_norms, rejected_embedding_norms: ‖∂ log π(y|x) / ∂ input embeddings‖²; differentiable in the
            policy.
        groups: int64 group index of the pair.
        aggregation: the aggregation that produced the ``*_logps``; None for sums.
        progress: the share of the run's optimizer steps taken before this one; a number.
    """

    chosen_logps: torch.Tensor
    rejected_logps: torch.Tensor
    chosen_lengths: torch.Tensor
    rejected_lengths: torch.Tensor
    ref_chosen_logps: torch.Tensor | None = None
    ref_rejected_logps: torch.Tensor | None = None
    chosen_token_logps: torch.Tensor | None = None
    rejected_token_logps: torch.Tensor | None = None
    ref_chosen_token_logps: torch.Tensor | None = None
    ref_rejected_token_logps: torch.Tensor | None = None
    chosen_token_mask: torch.Tensor | None = None
    rejected_token_mask: torch.Tensor | None = None
    chosen_scores: torch.Tensor | None = None
    rejected_scores: torch.Tensor | None = None
    chosen_token_weights: torch.Tensor | None = None
    rejected_token_weights: torch.Tensor | None = None
    chosen_guide_tokens: torch.Tensor | None = None
    rejected_guide_tokens: torch.Tensor | None = None
    chosen_contrast_tokens: torch.Tensor | None = None
    rejected_contrast_tokens: torch.Tensor | None = None
    chosen_safe: torch.Tensor | None = None
    rejected_safe: torch.Tensor | None = None
    chosen_kls: torch.Tensor | None = None
    rejected_kls: torch.Tensor | None = None
    ref_chosen_entropies: torch.Tensor | None = None
    ref_rejected_entropies: torch.Tensor | None = None
    chosen_collisions: torch.Tensor | None = None
    rejected_collisions: torch.Tensor | None = None
    chosen_embedding_norms: torch.Tensor | None = None
    rejected_embedding_norms: torch.Tensor | None = None
    groups: torch.Tensor | None = None
    aggregation: str | None = None
    progress: float = 0.0

    def __len__(self) -> int:
        return self.chosen_logps.shape[0]

    def log_ratios(self) -> tuple[torch.Tensor, torch.Tensor]:
        """``(B,)`` each: log π − log π_ref of the chosen and of the rejected responses, in nats.

        Raises:
            ValueError: there is no reference; the method's card must declare that it needs one.
        """
        if self.ref_chosen_logps is None or self.ref_rejected_logps is None:
            raise ValueError("no reference log-probs: the method's card must declare needs={'reference'}")
        return self.chosen_logps - self.ref_chosen_logps, self.rejected_logps - self.ref_rejected_logps

    def per_token(self) -> tuple[torch.Tensor, torch.Tensor]:
        """``(B,)`` each: the policy's log-probs of chosen and rejected, divided by their lengths if they are sums;
        unchanged under another aggregation (``--aggregation``)."""
        if self.aggregation is not None:
            return self.chosen_logps, self.rejected_logps
        return self.chosen_logps / self.chosen_lengths, self.rejected_logps / self.rejected_lengths

    def log_ratios_per_token(self) -> tuple[torch.Tensor, torch.Tensor]:
        """``(B,)`` each: :meth:`log_ratios`, divided by the lengths if the log-probs are sums; unchanged under another
        aggregation (``--aggregation``)."""
        chosen, rejected = self.log_ratios()
        if self.aggregation is not None:
            return chosen, rejected
        return chosen / self.chosen_lengths, rejected / self.rejected_lengths

    def present(self) -> dict[str, torch.Tensor]:
        """The tensors that are present, by name."""
        found = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: value for name, value in found.items() if isinstance(value, torch.Tensor)}

    def map(self, fn: Callable[[torch.Tensor], torch.Tensor]) -> PairBatch:
        """``fn`` applied to every field that is present."""
        changed: dict[str, Any] = {name: fn(value) for name, value in self.present().items()}
        return replace(self, **changed)

    def detach(self) -> PairBatch:
        return self.map(lambda value: value.detach())

    def to(self, *args: Any, dtype: torch.dtype | None = None) -> PairBatch:
        """Moved (``to(device)``) and, for floating-point fields only, cast (``to(dtype=...)``)."""

        def move(value: torch.Tensor) -> torch.Tensor:
            value = value.to(*args) if args else value
            return value.to(dtype) if dtype is not None and value.is_floating_point() else value

        return self.map(move)

    def rows(self, index: slice | torch.Tensor) -> PairBatch:
        """The pairs at ``index`` (a slice or an index tensor)."""
        return self.map(lambda value: value[index])

    def swap(self) -> PairBatch:
        """Both sides of every field exchanged: the same pairs with the opposite label."""
        exchanged: dict[str, Any] = {_other_side(name): value for name, value in self.present().items()}
        return replace(self, **exchanged)

    @staticmethod
    def cat(batches: Sequence[PairBatch]) -> PairBatch:
        """One batch of all pairs in order; token-level fields are zero-padded to the longest T."""
        if len(batches) == 1:
            return batches[0]
        joined: dict[str, Any] = {"aggregation": batches[0].aggregation, "progress": batches[0].progress}
        for name in batches[0].present():
            parts = [getattr(batch, name) for batch in batches]
            if parts[0].dim() == 2:
                width = max(part.shape[1] for part in parts)
                parts = [F.pad(part, (0, width - part.shape[1])) for part in parts]
            joined[name] = torch.cat(parts)
        return PairBatch(**joined)


def _other_side(name: str) -> str:
    if "chosen" in name:
        return name.replace("chosen", "rejected")
    return name.replace("rejected", "chosen")
