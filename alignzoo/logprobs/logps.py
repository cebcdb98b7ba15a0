"""From a tokenised batch to the log-probs of its responses: the only place where the model enters the objective.

Two paths give the same numbers: packed (each prompt once, no padding) and padded (every response in its own row after
its prompt). In both, the head runs only on positions that predict a response token, and everything after it is fp32
whatever the compute dtype (a bf16 sum near 300 has spacing 2). The loop only knows :data:`Forward`;
:mod:`alignzoo.logprobs.forward` chooses one for a run.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from typing import Any

import torch

from alignzoo.contract.responses import ResponseBatch
from alignzoo.data.collate import TokenBatch
from alignzoo.data.pack import Pack, pack_of
from alignzoo.logprobs import hidden
from alignzoo.logprobs.attention import NAME
from alignzoo.logprobs.embeddings import embedded, norms
from alignzoo.logprobs.heads import is_fused, values_of
from alignzoo.logprobs.statistics import NOTHING, Ask
from alignzoo.logprobs.teacher import Taught, Teacher
from alignzoo.logprobs.vocabulary import Values
from alignzoo.model.base import without_adapter

Forward = Callable[..., ResponseBatch]
"""From a model, a batch and, where something is asked for beside log-probs, an :class:`Ask`: what the batch says of its
responses, and their log-probs under the model; reference fields stay None."""


def packed_logps(
    model: torch.nn.Module, batch: TokenBatch, ask: Ask = NOTHING, *, tokens: bool = False, way: str = "segments"
) -> ResponseBatch:
    """Summed log-probs (nats) and lengths of R responses from one forward over one row that holds them all.

    Args:
        model: a causal LM that takes ``position_ids``, possibly wrapped (DDP, FSDP, PEFT). Attention is all that mixes
            its positions, and it is :func:`alignzoo.logprobs.attention.packed_attention`.
        ask: what else to compute; not ``embeddings``.
        tokens: also fill the ``(R, T)`` per-token fields.
        way: ``segments`` for that attention one segment after another, ``flex`` for FlexAttention, ``varlen`` for
            variable-length FlashAttention (all are it); ``masks`` where the model has another attention, which takes a
            mask of the whole row.

    Raises:
        ValueError: a response has no token (it would train on 0/0).
    """
    pack = pack_of(batch)
    _refuse_empty(batch, pack)
    inputs: dict[str, Any] = {"input_ids": pack.input_ids, "position_ids": pack.position_ids}
    if way == "masks":
        inputs["attention_mask"] = _row_masks(innermost(model), pack)
    else:
        if innermost(model).config._attn_implementation != NAME:  # another one would take no notice of the pack
            raise RuntimeError("the model's attention is not the packed one; see alignzoo.logprobs.forward")
        # Of the four dimensions that a ready mask has, so that the model makes none.
        inputs["attention_mask"] = torch.ones(1, 1, 1, 1, dtype=torch.bool, device=pack.input_ids.device)
        inputs |= {"pack": pack, "way": way}
    if ask.embeddings:
        raise RuntimeError("gradients by the embeddings are of padded rows; see alignzoo.logprobs.forward")
    values, teacher = values_of(model, innermost(model), inputs, pack.predicting, pack.targets, ask)
    pack.forget_masks()
    found = _responses(batch, values, pack.rows, pack.columns, pack.longest_response, tokens)
    return found if teacher is None else _taught(found, teacher)


def padded_logps(
    model: torch.nn.Module, batch: TokenBatch, ask: Ask = NOTHING, *, tokens: bool = False
) -> ResponseBatch:
    """Summed log-probs (nats) and lengths of R responses from one forward over R padded rows.

    Args:
        model: a causal LM called with ``input_ids`` and ``attention_mask``, possibly wrapped (DDP, FSDP, PEFT).
        batch: ``(R, L)`` tokens; padding on either side.
        ask: what else to compute.
        tokens: also fill the ``(R, T)`` per-token fields.

    Raises:
        ValueError: a response has no token (it would train on 0/0).
    """
    at = _predicted(batch)
    inputs = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}
    if "position_ids" in forward_parameters(innermost(model).__class__):
        inputs["position_ids"] = (batch.attention_mask.cumsum(-1) - 1).clamp(min=0)
    with ExitStack() as stack:
        again = torch.is_grad_enabled()
        given = stack.enter_context(embedded(innermost(model))) if ask.embeddings else []
        values, teacher = values_of(model, innermost(model), inputs, at.places, at.targets, ask)
        found = _responses(batch, values, at.rows, at.columns, at.longest, tokens)
        if ask.embeddings:
            found = replace(found, embedding_norms=norms(found.logps, given[0], again=again))
            found = found if again else found.detach()
    return found if teacher is None else _taught(found, teacher)


@dataclass(frozen=True)
class _Predicted:
    """The K response tokens of padded rows.

    Attributes:
        places: ``(K,)``, the flat position whose output predicts each.
        targets, rows, columns: ``(K,)``, as those of a :class:`Pack`.
        longest: tokens of the longest response.
    """

    places: torch.Tensor
    targets: torch.Tensor
    rows: torch.Tensor
    columns: torch.Tensor
    longest: int


def _predicted(batch: TokenBatch) -> _Predicted:
    """Without a device synchronisation where the batch was collated with a pack: the host knows its lengths."""
    width = batch.input_ids.shape[1]
    if batch.pack is not None:
        pack = batch.pack
        _refuse_empty(batch, pack)
        starts = torch.arange(batch.responses, device=pack.rows.device) * width + batch.prompt_lengths[batch.prompt]
        places = starts[pack.rows] + pack.columns - 1
        return _Predicted(places, pack.targets, pack.rows, pack.columns, pack.longest_response)
    kept = batch.response_mask[:, 1:]
    lengths = kept.sum(-1)
    if not bool((lengths > 0).all()):
        empty = int((lengths == 0).nonzero()[0, 0])
        row = int(batch.prompt[empty])
        raise _no_response(batch, row, empty - sum(batch.sizes[:row]))
    rows, places = kept.nonzero(as_tuple=True)
    columns = (kept.cumsum(-1) - 1)[rows, places]
    targets = batch.input_ids[:, 1:][rows, places]
    return _Predicted(rows * width + places, targets, rows, columns, int(lengths.max()))


def _refuse_empty(batch: TokenBatch, pack: Pack) -> None:
    for i, segment in enumerate(pack.segments):
        if 0 in segment.responses:
            raise _no_response(batch, i, segment.responses.index(0))


def _no_response(batch: TokenBatch, i: int, j: int) -> ValueError:
    return ValueError(f"row {int(batch.row_ids[i])}: response {j + 1} of {batch.sizes[i]} has no token")


def _responses(
    batch: TokenBatch, values: Values, rows: torch.Tensor, columns: torch.Tensor, longest: int, tokens: bool
) -> ResponseBatch:
    """The batch's responses from values ``(K,)`` each: of which response each is, and where in it."""

    def placed(given: torch.Tensor) -> torch.Tensor:
        return given.new_zeros(batch.responses, longest).index_put((rows, columns), given)

    def summed(given: torch.Tensor | None) -> torch.Tensor | None:
        return None if given is None else placed(given).sum(-1)

    grid = placed(values.logps)
    mask = torch.zeros_like(grid).index_put((rows, columns), torch.ones_like(values.logps))
    hidden.place(rows, columns, batch.responses, longest)
    return ResponseBatch(
        logps=grid.sum(-1),
        lengths=mask.sum(-1),
        prompt=batch.prompt,
        labels=batch.labels,
        ranks=batch.ranks,
        roles=batch.roles,
        token_logps=grid if tokens else None,
        token_mask=mask if tokens else None,
        kls=summed(values.kls),
        ref_entropies=summed(values.entropies),
        collisions=summed(values.collisions),
        paired=batch.paired,
    )


def _taught(found: ResponseBatch, teacher: Teacher) -> Taught:
    return Taught(**{field.name: getattr(found, field.name) for field in fields(found)}, teacher=teacher)


def has_fused_head(model: torch.nn.Module) -> bool:
    """Whether the log-probs of a model come from the fused head, once it has been tried."""
    return is_fused(innermost(model))


def _row_masks(inner: Any, pack: Pack) -> Any:
    """A mask of the whole row as the model takes it: one per kind of layer where it has several."""
    config = inner.config.get_text_config()
    window = getattr(config, "sliding_window", None)
    kinds = set(getattr(config, "layer_types", None) or ())
    additive = config._attn_implementation == "eager"
    dtype = next(inner.parameters()).dtype

    def mask(window: int | None) -> torch.Tensor:
        allowed = pack.dense_mask(window)[None, None]
        if not additive:
            return allowed
        return torch.zeros(allowed.shape, dtype=dtype, device=allowed.device).masked_fill(
            ~allowed, torch.finfo(dtype).min
        )

    if "sliding_attention" in kinds:
        return {"full_attention": mask(None), "sliding_attention": mask(window)}
    return mask(None if kinds else window)


def innermost(model: Any) -> Any:
    """The transformers model inside DDP and PEFT wrappers."""
    return without_adapter(getattr(model, "module", model))


@lru_cache
def forward_parameters(kind: Any) -> frozenset[str]:
    """The names that a model class's ``forward`` takes."""
    return frozenset(inspect.signature(kind.forward).parameters)
