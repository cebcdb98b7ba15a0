"""Batches as a model would give them: every field filled, token fields that add up, a reference near the policy."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Any, TypeVar

from alignzoo.contract.card import Need
from alignzoo.contract.loss import Reads
from alignzoo.contract.pairs import PairBatch
from alignzoo.contract.responses import DIFFERENTIABLE, KL, POLICY, ResponseBatch
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
    "chosen_safe": frozenset({"safety"}),
    "rejected_safe": frozenset({"safety"}),
    "chosen_kls": frozenset({"reference-kl"}),
    "rejected_kls": frozenset({"reference-kl"}),
    "ref_chosen_entropies": frozenset({"reference-entropy"}),
    "ref_rejected_entropies": frozenset({"reference-entropy"}),
    "chosen_collisions": frozenset({"collisions"}),
    "rejected_collisions": frozenset({"collisions"}),
    "chosen_embedding_norms": frozenset({"embedding-gradients"}),
    "rejected_embedding_norms": frozenset({"embedding-gradients"}),
    "chosen_guide_tokens": frozenset({"guide"}),
    "rejected_guide_tokens": frozenset({"guide"}),
    "chosen_contrast_tokens": frozenset({"contrast"}),
    "rejected_contrast_tokens": frozenset({"contrast"}),
    "groups": frozenset({"groups"}),
    "safe": frozenset({"safety"}),
    "kls": frozenset({"reference-kl"}),
    "ref_entropies": frozenset({"reference-entropy"}),
    "collisions": frozenset({"collisions"}),
    "embedding_norms": frozenset({"embedding-gradients"}),
    "guide_tokens": frozenset({"guide"}),
    "contrast_tokens": frozenset({"contrast"}),
    "ref_logps": frozenset({"reference"}),
    "token_logps": frozenset({"token-logps"}),
    "ref_token_logps": frozenset({"reference", "token-logps"}),
    "token_mask": frozenset({"token-logps"}),
    "scores": frozenset({"scores"}),
    "labels": frozenset({"labels"}),
    "roles": frozenset({"mismatched"}),
}
"""What a card has to declare for a field to be there; the fields that are not named are always there."""
SAME: dict[Need, Need] = {"reward": "scores"}
"""Needs that give the fields of another one."""

GROUPS = 3
ORDER = (5, 2, 7, 0, 3, 1, 6, 4)
"""Another order of eight pairs or prompts."""
PARTS = ((3,), (1, 4, 6), (1, 2, 3, 4, 5, 6, 7))
"""Some of eight pairs or prompts: one, a few, and all but one."""
PROGRESS = 0.25
"""The share of the run's steps taken before the batch, so that what changes over a run is under way."""
_LISTS = (2, 4, 3, 2, 5, 3, 2, 4)
"""Responses of the prompts of ranked lists."""

Batch = TypeVar("Batch", bound=PairBatch | ResponseBatch)
AnyBatch = PairBatch | ResponseBatch


def sample(needs: Collection[Need] | None = None, *, count: int = 8, seed: int = 0, spread: float = 0.5) -> PairBatch:
    """``count`` pairs in float64 with the fields of ``needs`` (all by default).

    Args:
        spread: standard deviation of a token's log-ratio to the reference, in nats.
    """
    draw = torch.Generator().manual_seed(seed)
    longest = 9
    fields: dict[str, Any] = {}
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
    # Drawn after all of the above, so that these stay what they were before there were any of the following.
    for side in ("chosen", "rejected"):
        mask, logps = fields[f"{side}_token_mask"], fields[f"{side}_token_logps"]
        others = [
            (logps + spread * torch.randn(count, longest, generator=draw, dtype=torch.float64)).clamp(max=-0.01) * mask
            for _ in ("guide", "contrast")
        ]
        drawn = torch.rand(5, count, generator=draw, dtype=torch.float64)
        fields |= {
            f"{side}_guide_tokens": others[0],
            f"{side}_contrast_tokens": others[1],
            f"{side}_safe": (drawn[0] < 0.5).double(),
            f"{side}_kls": (0.01 + drawn[1] * spread**2) * fields[f"{side}_lengths"],
            f"ref_{side}_entropies": (0.05 + 0.9 * drawn[2]) * fields[f"{side}_lengths"],
            f"{side}_collisions": -(0.05 + 2 * drawn[3]) * fields[f"{side}_lengths"],
            f"{side}_embedding_norms": (0.1 + drawn[4]) * fields[f"{side}_lengths"],
        }
    fields["groups"] = torch.arange(count) % GROUPS
    return PairBatch(**{name: value for name, value in fields.items() if _is_there(name, needs)}, progress=PROGRESS)


def sample_of(
    reads: Reads, needs: Collection[Need] | None = None, *, count: int = 8, seed: int = 0, spread: float = 0.5
) -> Any:
    """What a loss that ``reads`` so is called with, ``count`` values of it, with the fields of ``needs``.

    ``pairs``: :func:`sample`. ``responses``: a response to each prompt, every other one undesirable, and with it one KL
    response, whose log-ratios have a positive mean. ``lists``: two to five ranked responses to each prompt. ``chosen``:
    a response to each prompt.
    """
    if reads == "pairs":
        return sample(needs, count=count, seed=seed, spread=spread)
    with_kl = reads == "responses" and (needs is None or "mismatched" in needs)
    own = [_LISTS[i % len(_LISTS)] if reads == "lists" else 1 for i in range(count)]
    sizes = torch.tensor([size + with_kl for size in own])
    prompt = torch.repeat_interleave(torch.arange(count), sizes)
    of_side = sample(None, count=len(prompt), seed=seed, spread=spread)
    fields = {name.replace("chosen_", ""): value for name, value in of_side.present().items() if "rejected" not in name}
    place = torch.cat([torch.arange(int(size)) for size in sizes])
    fields["prompt"], fields["groups"] = prompt, prompt % GROUPS
    fields["ranks"] = place if reads == "lists" else torch.full_like(prompt, -1)
    fields["labels"] = torch.zeros_like(prompt) if reads == "lists" else torch.ones_like(prompt)
    if reads == "responses":
        fields["labels"] = 1 - 2 * (prompt % 2)
    if with_kl:
        mismatched = place == 1
        fields["roles"] = torch.where(mismatched, KL, POLICY)
        fields["labels"] = torch.where(mismatched, 0, fields["labels"])
        fields["ref_logps"] = fields["ref_logps"] - 2.0 * mismatched
    present: dict[str, Any] = {name: value for name, value in fields.items() if _is_there(name, needs)}
    return ResponseBatch(**present, progress=PROGRESS)


def lacking(field: str, needs: Collection[Need]) -> frozenset[Need]:
    """What would have to be declared beside ``needs`` for the field to be there."""
    return FIELD_NEEDS.get(field, frozenset()) - {SAME.get(need, need) for need in needs}


def _is_there(field: str, needs: Collection[Need] | None) -> bool:
    return needs is None or not lacking(field, needs)


def take(batch: Batch, index: torch.Tensor) -> Batch:
    """Some of the pairs or prompts, in the order of ``index``, as a batch of their own: token fields only as wide as
    the longest response left."""
    rows: Any = batch.rows(index) if isinstance(batch, PairBatch) else _prompts(batch, index)
    masks = [mask for name, mask in rows.present().items() if name.endswith("token_mask")]
    if not masks:
        return rows
    width = max(int(mask.sum(-1).max()) for mask in masks)
    return rows.map(lambda value: value[:, :width] if value.dim() == 2 else value)


def _prompts(responses: ResponseBatch, index: torch.Tensor) -> ResponseBatch:
    """The responses of these prompts, in this order."""
    places = [(responses.prompt == prompt).nonzero().flatten() for prompt in index.tolist()]
    prompt = torch.repeat_interleave(torch.arange(len(places)), torch.tensor([len(found) for found in places]))
    return replace(responses.rows(torch.cat(places)), prompt=prompt)


def with_margin(batch: Batch, margin: float) -> Batch:
    """The batch with the log-prob of some responses lowered by ``|margin|`` nats: of pairs the rejected ones where it
    is positive, the chosen ones where it is negative; of responses every other one. Token fields follow."""
    prefix, lowered_ones = "", torch.tensor(1.0, dtype=torch.float64)
    if isinstance(batch, PairBatch):
        prefix = "rejected_" if margin > 0 else "chosen_"
    else:
        lowered_ones = ((torch.arange(len(batch)) % 2 == 1) == (margin > 0)).double()
    lowered: dict[str, Any] = {f"{prefix}logps": getattr(batch, f"{prefix}logps") - abs(margin) * lowered_ones}
    tokens, mask = getattr(batch, f"{prefix}token_logps"), getattr(batch, f"{prefix}token_mask")
    if tokens is not None:
        shares = mask / mask.sum(-1, keepdim=True)
        by_row = lowered_ones if lowered_ones.dim() == 0 else lowered_ones[:, None]
        lowered[f"{prefix}token_logps"] = tokens - abs(margin) * by_row * shares
    return replace(batch, **lowered)


def leaves(batch: Batch) -> tuple[Batch, dict[str, torch.Tensor]]:
    """The batch with its policy fields as leaves that ask for gradients, and those leaves by name."""
    found = {
        name: value.detach().clone().requires_grad_(True)
        for name, value in batch.present().items()
        if name.endswith(DIFFERENTIABLE) and not name.startswith("ref_") and name != "old_logps"
    }
    changed: dict[str, Any] = dict(found)
    return replace(batch, **changed), found
