"""From a tokenised batch to the log-probs of its responses: the only place where the model enters the objective.

Two paths give the same numbers: packed (each prompt once, no padding) and padded (every response in its own row after
its prompt). In both, the head runs only on positions that predict a response token, and everything after it is fp32
whatever the compute dtype (a bf16 sum near 300 has spacing 2). The loop only knows :data:`Forward`;
:mod:`alignzoo.logprobs.forward` chooses one for a run.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F

from alignzoo.contract.responses import ResponseBatch
from alignzoo.data.collate import TokenBatch
from alignzoo.data.pack import Pack, pack_of
from alignzoo.logprobs import hidden
from alignzoo.logprobs.attention import NAME
from alignzoo.logprobs.head import Shape, token_logps
from alignzoo.model.base import without_adapter

Forward = Callable[[torch.nn.Module, TokenBatch], ResponseBatch]
"""What the batch says of its responses, and their log-probs under a model; reference fields stay None."""


def packed_logps(
    model: torch.nn.Module, batch: TokenBatch, *, tokens: bool = False, way: str = "segments"
) -> ResponseBatch:
    """Summed log-probs (nats) and lengths of R responses from one forward over one row that holds them all.

    Args:
        model: a causal LM that takes ``position_ids``, possibly wrapped (DDP, FSDP, PEFT). Attention is all that mixes
            its positions, and it is :func:`alignzoo.logprobs.attention.packed_attention`.
        tokens: also fill the ``(R, T)`` per-token fields.
        way: ``segments`` for that attention one segment after another, ``flex`` for FlexAttention (both are it);
            ``masks`` where the model has another attention, which takes a mask of the whole row.

    Raises:
        ValueError: a response has no token (it would train on 0/0).
    """
    pack = pack_of(batch)
    for i, segment in enumerate(pack.segments):
        if 0 in segment.responses:
            raise _no_response(batch, i, segment.responses.index(0))
    inputs: dict[str, Any] = {"input_ids": pack.input_ids, "position_ids": pack.position_ids}
    if way == "masks":
        inputs["attention_mask"] = _row_masks(innermost(model), pack)
    else:
        if innermost(model).config._attn_implementation != NAME:  # another one would take no notice of the pack
            raise RuntimeError("the model's attention is not the packed one; see alignzoo.logprobs.forward")
        # Of the four dimensions that a ready mask has, so that the model makes none.
        inputs["attention_mask"] = torch.ones(1, 1, 1, 1, dtype=torch.bool, device=pack.input_ids.device)
        inputs |= {"pack": pack, "flex": way == "flex"}
    values = _token_logps(model, inputs, pack.predicting, pack.targets)
    pack.forget_masks()
    return _responses(batch, values, pack.rows, pack.columns, pack.longest_response, tokens)


def padded_logps(model: torch.nn.Module, batch: TokenBatch, *, tokens: bool = False) -> ResponseBatch:
    """Summed log-probs (nats) and lengths of R responses from one forward over R padded rows.

    Args:
        model: a causal LM called with ``input_ids`` and ``attention_mask``, possibly wrapped (DDP, FSDP, PEFT).
        batch: ``(R, L)`` tokens; padding on either side.
        tokens: also fill the ``(R, T)`` per-token fields.

    Raises:
        ValueError: a response has no token (it would train on 0/0).
    """
    kept = batch.response_mask[:, 1:]
    lengths = kept.sum(-1)
    if not bool((lengths > 0).all()):
        empty = int((lengths == 0).nonzero()[0, 0])
        row = int(batch.prompt[empty])
        raise _no_response(batch, row, empty - sum(batch.sizes[:row]))
    inputs = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}
    if "position_ids" in forward_parameters(innermost(model).__class__):
        inputs["position_ids"] = (batch.attention_mask.cumsum(-1) - 1).clamp(min=0)
    rows, places = kept.nonzero(as_tuple=True)
    columns = (kept.cumsum(-1) - 1)[rows, places]
    targets = batch.input_ids[:, 1:][rows, places]
    values = _token_logps(model, inputs, rows * batch.input_ids.shape[1] + places, targets)
    return _responses(batch, values, rows, columns, int(lengths.max()), tokens)


def _no_response(batch: TokenBatch, i: int, j: int) -> ValueError:
    return ValueError(f"row {int(batch.row_ids[i])}: response {j + 1} of {batch.sizes[i]} has no token")


def _responses(
    batch: TokenBatch, values: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor, longest: int, tokens: bool
) -> ResponseBatch:
    """The batch's responses from ``(K,)`` log-probs: of which response each is, and where in it."""
    grid = values.new_zeros(batch.responses, longest).index_put((rows, columns), values)
    mask = torch.zeros_like(grid).index_put((rows, columns), torch.ones_like(values))
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
        paired=batch.paired,
    )


def _token_logps(
    model: torch.nn.Module, inputs: dict[str, Any], positions: torch.Tensor, targets: torch.Tensor
) -> torch.Tensor:
    """``(K,)`` log-probs of ``targets`` by what the model says at flat ``positions`` of its input."""
    inner = innermost(model)
    if _fusible(inner) and _fuses(model, inputs, positions, targets):
        return _by_fused_head(model, inputs, positions, targets)
    return _by_logits(model, inputs, positions, targets)


def _by_fused_head(
    model: torch.nn.Module, inputs: dict[str, Any], positions: torch.Tensor, targets: torch.Tensor
) -> torch.Tensor:
    inner = innermost(model)
    head = inner.get_output_embeddings()
    with _only_at(head, positions), _fused(inner, head, targets):
        values: torch.Tensor = model(**inputs, use_cache=False).logits
    return values.reshape(-1)


def _by_logits(
    model: torch.nn.Module, inputs: dict[str, Any], positions: torch.Tensor, targets: torch.Tensor
) -> torch.Tensor:
    head = innermost(model).get_output_embeddings()
    with ExitStack() as stack:
        ran = stack.enter_context(_only_at(head, positions)) if head is not None else []
        found = model(**inputs, use_cache=False).logits
    logits = found[0] if ran else found.flatten(0, 1).index_select(0, positions)
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))  # fp64 models stay fp64
    return -F.cross_entropy(logits, targets, reduction="none")


def _fusible(inner: Any) -> bool:
    """Whether the head is a plain linear map that is called as one."""
    head = inner.get_output_embeddings()
    return type(head) is torch.nn.Linear and "forward" not in vars(head)


_TRIED: dict[object, bool] = {}
"""By model class and by what it does after the head: whether the fused head gives the log-probs of its own logits."""


def _fuses(model: torch.nn.Module, inputs: dict[str, Any], positions: torch.Tensor, targets: torch.Tensor) -> bool:
    """Whether a model of this kind means by its attributes what :data:`_AFTERWARDS` takes them for: tried once, by the
    first batch (of a run: by the few rows that packing is tried on), so that ranks do the same after."""
    kind = _kind(innermost(model))
    if kind not in _TRIED:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            expected = _by_logits(model, inputs, positions, targets)
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            found = _by_fused_head(model, inputs, positions, targets)
        narrow = torch.is_autocast_enabled(expected.device.type) or next(model.parameters()).dtype.itemsize < 4
        near = 0.05 if narrow else 1e-4
        same = found.shape == expected.shape
        _TRIED[kind] = same and torch.allclose(found, expected, rtol=near, atol=near, equal_nan=True)
    return _TRIED[kind]


def _kind(inner: Any) -> object:
    return type(inner), tuple(sorted(_afterwards(inner).items()))


def has_fused_head(model: torch.nn.Module) -> bool:
    """Whether the log-probs of a model come from the fused head, once it has been tried."""
    inner = innermost(model)
    return _fusible(inner) and _TRIED.get(_kind(inner), False)


@contextmanager
def _only_at(head: torch.nn.Module, positions: torch.Tensor) -> Iterator[list[bool]]:
    """Inside, the head sees the hidden states at ``positions`` as its only row; what is given says whether it ran."""
    ran: list[bool] = []

    def select(_head: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        ran.append(True)
        selected = inputs[0].flatten(0, 1).index_select(0, positions)[None]
        hidden.note(selected)
        return (selected, *inputs[1:])

    handle = head.register_forward_pre_hook(select)
    try:
        yield ran
    finally:
        handle.remove()


@contextmanager
def _fused(inner: Any, head: torch.nn.Linear, targets: torch.Tensor) -> Iterator[None]:
    """Inside, the head gives log-probs ``(1, K, 1)`` of the targets in place of logits, and nothing is done to them
    after it. The model runs whole, so what wraps it (autocast, DDP, FSDP) does not see."""
    with _nothing_afterwards(inner) as shape:

        def logps(input: torch.Tensor) -> torch.Tensor:
            values, _ = token_logps(input[0], head.weight, targets, bias=head.bias, shape=shape)
            return values[None, :, None].clone()  # FSDP2 wants no view from what it shards

        head.forward = logps  # type: ignore[method-assign]
        try:
            yield
        finally:
            del head.forward


_AFTERWARDS = {"final_logit_softcapping": None, "logits_scaling": 1.0, "logit_scale": 1.0}
"""What models do after the head, as their configs or they themselves say it (Gemma; Granite; Cohere), and its value
where it does nothing."""


def _afterwards(inner: Any) -> dict[str, float]:
    """What the model does after its head, by name."""
    found = {}
    for name, nothing in _AFTERWARDS.items():
        for owner in (inner, inner.config):
            value = vars(owner).get(name)
            if isinstance(value, (int, float)) and value != nothing:
                found[name] = float(value)
    return found


@contextmanager
def _nothing_afterwards(inner: Any) -> Iterator[Shape]:
    """Inside, the model leaves its head's output as it is; what it would do to it is given."""
    found = _afterwards(inner)
    owners = [(o, name, vars(o)[name]) for name in found for o in (inner, inner.config) if name in vars(o)]
    scale = found.get("logit_scale", 1.0) / found.get("logits_scaling", 1.0)
    try:
        for owner, name, _ in owners:
            setattr(owner, name, _AFTERWARDS[name])
        yield Shape(scale, found.get("final_logit_softcapping"))
    finally:
        for owner, name, value in owners:
            setattr(owner, name, value)


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
