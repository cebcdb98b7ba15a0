"""Chooses how a run computes log-probs: packed if that reproduces the padded numbers, else padded.

Packing requires that only attention mixes positions and that these come from ``position_ids``. This is verified, not
assumed: once per run, before the first step, every token's log-prob in a few rows is compared, packed against padded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from alignzoo.data.collate import TokenBatch, batches_of
from alignzoo.data.lengths import lengths_of
from alignzoo.distributed.ranks import on_all_ranks
from alignzoo.logprobs.heads import is_fused, remember
from alignzoo.logprobs.logps import Forward, forward_parameters, innermost, packed_logps, padded_logps
from alignzoo.logprobs.trial import Passed, Sample, Trials, micro_batch, try_embeddings, worth_trying
from alignzoo.logprobs.ways import WAYS, Tried, evaluated, leave_packing, try_packing, use_packing
from alignzoo.plan.plan import Plan

__all__ = ["Choice", "choose_forward", "forward_of", "leave_packing", "use_packing", "why_not_packed", "worth_trying"]

if TYPE_CHECKING:
    import numpy as np
    from accelerate import Accelerator
    from datasets import Dataset

    from alignzoo.data.shapes import Shape


@dataclass(frozen=True)
class Choice:
    """A forward function, with a one-line reason for choosing it.

    Attributes:
        way: ``padded``, or one of :data:`WAYS`.
        sample: the rows that packing was tried on, where the trial computed what the run computes of the reference.
    """

    forward: Forward
    packed: bool
    why: str
    way: str = "padded"
    sample: Sample | None = None

    @property
    def by_segment(self) -> bool:
        """Whether the model now uses packed attention."""
        return self.way in WAYS and self.way != "masks"

    def adopt(self, model: Any) -> None:
        """Prepare another model with the same architecture for :attr:`forward`."""
        if self.by_segment:
            use_packing(model)


def forward_of(
    plan: Plan,
    policy: Any,
    dataset: Dataset,
    first: Sequence[int],
    pad_id: int,
    accelerator: Accelerator,
    *,
    shape: Shape,
    partners: np.ndarray | None = None,
    trials: Trials | None = None,
) -> Choice:
    """The forward of a run, the same on all ranks.

    Args:
        policy: see :func:`choose_forward`.
        first: rows of the first step.
        shape, partners: of ``dataset``, see :func:`alignzoo.data.collate.batches_of`.
        trials: results of earlier processes, which are not tried again.
    """
    settings, lengths = plan.settings, lengths_of(dataset, partners)

    def batch_of(rows: Sequence[int]) -> TokenBatch:
        [batch] = batches_of(dataset, rows, len(rows), pad_id, shape=shape, partners=partners)
        return batch.to(accelerator.device)

    sample = batch_of(worth_trying(policy, lengths, first))
    timed = batch_of(micro_batch(first, lengths, settings)) if accelerator.device.type == "cuda" else None
    tokens, embeddings = "token-logps" in plan.needs, "embedding-gradients" in plan.needs
    autocast = torch.bfloat16 if settings.precision == "bf16" else None
    tried = partial(
        _try_forward, policy, sample, timed, packing=settings.packing, embeddings=embeddings, autocast=autocast
    )
    if trials is None or embeddings or not settings.packing:
        return _chosen(policy, on_all_ranks(accelerator, tried), tokens)
    choice, responses = _known(policy, trials.of(sample), tokens), None
    if choice is None:
        found = tried()
        choice = _chosen(policy, [found], tokens)
        if choice.way != "segments":
            return choice
        trials.keep(sample, Passed(choice.why, is_fused(innermost(policy))))
        responses = found.right[choice.way].responses
    alike = autocast is None and not settings.compile and not hasattr(policy, "peft_config")
    return replace(choice, sample=Sample(sample, responses)) if alike else choice


def _known(policy: Any, passed: Passed | None, tokens: bool) -> Choice | None:
    """Packing by segments where it has passed before."""
    if passed is None:
        return None
    remember(innermost(policy), passed.fused)
    use_packing(policy)
    return Choice(partial(packed_logps, way="segments", tokens=tokens), True, passed.why, "segments")


def choose_forward(
    policy: Any,
    sample: TokenBatch,
    *,
    packing: bool = True,
    tokens: bool = False,
    embeddings: bool = False,
    autocast: torch.dtype | None = None,
) -> Choice:
    """The fastest forward that reproduces the padded path's log-probs.

    Args:
        policy: unwrapped, on its device; if it is sharded, all ranks call this alike. Gets packed attention if that is
            chosen; without a pack, this behaves as before.
        sample: rows to compare on, see :func:`worth_trying`.
        packing: whether packing is allowed.
        tokens: whether per-token fields are needed.
        embeddings: whether gradients by the input embeddings are needed.
        autocast: the run's compute dtype, if it is not the weights'.
    """
    tried = _try_forward(policy, sample, None, packing=packing, embeddings=embeddings, autocast=autocast)
    return _chosen(policy, [tried], tokens)


def _try_forward(
    policy: Any,
    sample: TokenBatch,
    timed: TokenBatch | None,
    *,
    packing: bool,
    embeddings: bool,
    autocast: torch.dtype | None,
) -> Tried:
    evaluated(policy, sample.row(0, most=8), padded_logps)  # checks the head here and not during a step
    reason = _why_padded(policy, sample, packing, embeddings, autocast)
    return Tried(why_padded=reason) if reason is not None else try_packing(policy, sample, autocast, timed)


def _chosen(policy: Any, ranks: Sequence[Tried], tokens: bool) -> Choice:
    """The choice of all ranks from what each has tried: of the ways that are right on all of them, the one that takes
    least time on the slowest."""
    right = [way for way in ranks[0].right if all(way in tried.right for tried in ranks)]
    if not right:
        why = next((tried.why_padded for tried in ranks if tried.why_padded is not None), None)
        why = why or ": the ranks can pack in different ways only"
        return Choice(partial(padded_logps, tokens=tokens), False, f"packing is off{why}")
    slowest = {way: max(tried.right[way].milliseconds or 0.0 for tried in ranks) for way in right}
    way = min(right, key=lambda way: slowest[way])
    if way != "masks":
        use_packing(policy)
    gap = max(tried.right[way].gap for tried in ranks)
    facts = [f"max difference from padded log-probs: {gap:.0e}"]
    if len(right) > 1:
        others = sorted((slowest[other], other) for other in right if other != way)
        facts.append(", ".join(f"{time / slowest[way]:.2f}× the time {WAYS[other]}" for time, other in others))
    how = "" if way == "segments" and len(right) == 1 else f", {WAYS[way]}"
    why = f"packing: each prompt once, no padding{how} ({'; '.join(facts)})"
    return Choice(partial(packed_logps, way=way, tokens=tokens), True, why, way)


def _why_padded(
    policy: Any, sample: TokenBatch, packing: bool, embeddings: bool, autocast: torch.dtype | None
) -> str | None:
    """Why packing is not even tried, or None."""
    if embeddings:
        try_embeddings(policy, sample.row(0, most=8), autocast)
        return ": a method of this run reads gradients by the input embeddings, so each response has its own row"
    if not packing:
        return " (--no-packing): padded batches, each response with its own prompt"
    reason = why_not_packed(innermost(policy))
    return None if reason is None else f": {reason}"


_BY_ROW = ("attn_temperature_tuning", "index_topk")


def why_not_packed(model: Any) -> str | None:
    """Why a model cannot be packed, or None."""
    if getattr(model, "_is_stateful", False):
        return "the model is recurrent: its layers mix positions in the order of the row"
    if _has_alibi(model):
        return "the model measures positions within the row (ALiBi)"
    if hasattr(model.config, "vision_config"):
        return "the model accepts images"
    for name in _BY_ROW:
        if getattr(model.config.get_text_config(), name, None):
            return f"the model's {name} depends on a token's position in the row"
    if "position_ids" not in forward_parameters(model.__class__):
        return "the model does not accept position_ids"
    return None


def _has_alibi(model: Any) -> bool:
    """Whether a model biases attention by the distance within the row: a setting says so, be it one of a group of
    settings, or where none does, its trunk builds such biases."""
    config = model.config.get_text_config()
    groups = [config, *(value for value in vars(config).values() if hasattr(value, "to_dict"))]
    said = [group.alibi for group in groups if hasattr(group, "alibi")]
    if said:
        return any(said)
    return any("alibi" in name for name in dir(type(getattr(model, model.base_model_prefix, model))))
