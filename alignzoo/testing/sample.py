"""Pairs as a model would give them: every field filled, token fields that add up, a reference near the policy."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from alignzoo.contract.card import Need
from alignzoo.contract.pairs import DIFFERENTIABLE, PairBatch
from alignzoo.lazy import torch

FIELD_NEEDS: dict[str, frozenset[Need]] = {
    "ref_chosen_logps": frozenset({"reference"}),
    "ref_rejected_logps": frozenset({"reference"}),
    "chosen_token_logps": frozenset({"token-logps"}),
    "rejected_token_logps": frozenset({"token-logps"}),
    "ref_chosen_token_logps": frozenset({"reference", "token-logps"}),
    "ref_rejected_token_logps": frozenset({"reference", "token-logps"}),
    "chosen_token_mask": frozenset({"token-logps"}),
    "rejected_token_mask": frozenset({"token-logps"}),
    "chosen_scores": frozenset({"scores"}),
    "rejected_scores": frozenset({"scores"}),
    "groups": frozenset({"groups"}),
}
"""What a card has to declare for a field to be there; the fields that are not named are always there."""
SAME: dict[Need, Need] = {"reward": "scores"}
"""Needs that give the fields of another one."""

GROUPS = 3
ORDER = (5, 2, 7, 0, 3, 1, 6, 4)
"""Another order of eight pairs."""
PARTS = ((3,), (1, 4, 6), (1, 2, 3, 4, 5, 6, 7))
"""Some of eight pairs: one, a few, and all but one."""


def sample(needs: Collection[Need] | None = None, *, count: int = 8, seed: int = 0, spread: float = 0.5) -> PairBatch:
    """``count`` pairs in float64 with the fields of ``needs`` (all by default).

    Args:
        spread: standard deviation of a token's log-ratio to the reference, in nats.
    """
    draw = torch.Generator().manual_seed(seed)
    longest = 9
    fields: dict[str, torch.Tensor] = {}
    for side in ("chosen", "rejected"):
        lengths = torch.randint(2, longest, (count,), generator=draw)
        lengths[0] = longest
        mask = (torch.arange(longest) < lengths[:, None]).double()
        logps = -0.05 - 1.5 * torch.randn(count, longest, generator=draw, dtype=torch.float64).abs()
        ref = (logps + spread * torch.randn(count, longest, generator=draw, dtype=torch.float64)).clamp(max=-0.01)
        fields |= {
            f"{side}_logps": (logps * mask).sum(-1),
            f"{side}_lengths": mask.sum(-1),
            f"ref_{side}_logps": (ref * mask).sum(-1),
            f"{side}_token_logps": logps * mask,
            f"ref_{side}_token_logps": ref * mask,
            f"{side}_token_mask": mask,
            f"{side}_scores": torch.randn(count, generator=draw, dtype=torch.float64),
        }
    fields["groups"] = torch.arange(count) % GROUPS
    return PairBatch(**{name: value for name, value in fields.items() if _is_there(name, needs)})


def lacking(field: str, needs: Collection[Need]) -> frozenset[Need]:
    """What would have to be declared beside ``needs`` for the field to be there."""
    return FIELD_NEEDS.get(field, frozenset()) - {SAME.get(need, need) for need in needs}


def _is_there(field: str, needs: Collection[Need] | None) -> bool:
    return needs is None or not lacking(field, needs)


def take(pairs: PairBatch, index: torch.Tensor) -> PairBatch:
    """Some of the pairs as a batch of their own: token fields only as wide as the longest response left."""
    rows = pairs.rows(index)
    masks = [mask for mask in (rows.chosen_token_mask, rows.rejected_token_mask) if mask is not None]
    if not masks:
        return rows
    width = max(int(mask.sum(-1).max()) for mask in masks)
    return rows.map(lambda value: value[:, :width] if value.dim() == 2 else value)


def with_margin(pairs: PairBatch, margin: float) -> PairBatch:
    """The pairs with the log-prob of one response lowered by ``|margin|`` nats: the rejected ones where it is positive,
    the chosen ones where it is negative; token fields follow."""
    side = "rejected" if margin > 0 else "chosen"
    lowered = {f"{side}_logps": getattr(pairs, f"{side}_logps") - abs(margin)}
    tokens, mask = getattr(pairs, f"{side}_token_logps"), getattr(pairs, f"{side}_token_mask")
    if tokens is not None:
        lowered[f"{side}_token_logps"] = tokens - abs(margin) * mask / mask.sum(-1, keepdim=True)
    return replace(pairs, **lowered)


def leaves(pairs: PairBatch) -> tuple[PairBatch, dict[str, torch.Tensor]]:
    """The pairs with their policy fields as leaves that ask for gradients, and those leaves by name."""
    found = {n: v.detach().clone().requires_grad_(True) for n, v in pairs.present().items() if n in DIFFERENTIABLE}
    return replace(pairs, **found), found
