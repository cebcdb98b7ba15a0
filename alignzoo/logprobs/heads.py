"""A model's pass with its head: by the fused head if that gives the log-probs of the model's own logits, else by these.

The head sees only the positions that predict a response token.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
import torch.nn.functional as F

from alignzoo.logprobs import hidden
from alignzoo.logprobs.head import token_logps
from alignzoo.logprobs.softmax import Shape
from alignzoo.logprobs.statistics import NOTHING, Ask
from alignzoo.logprobs.teacher import HeadInputs, Logits, Teacher
from alignzoo.logprobs.vocabulary import Values, values_at, values_of_logits
from alignzoo.model.narrow import NarrowLinear


def values_of(
    model: torch.nn.Module,
    inner: Any,
    inputs: dict[str, Any],
    positions: torch.Tensor,
    targets: torch.Tensor,
    ask: Ask = NOTHING,
) -> tuple[Values, Teacher | None]:
    """What the model says of ``targets`` at flat ``positions`` of its input; and with ``ask.teach`` what another can
    be compared with."""
    if not ask.embeddings and _fusible(inner) and _fuses(model, inner, inputs, positions, targets):
        return _by_fused_head(model, inner, inputs, positions, targets, ask)
    return _by_logits(model, inner, inputs, positions, targets, ask)


def _by_fused_head(
    model: torch.nn.Module,
    inner: Any,
    inputs: dict[str, Any],
    positions: torch.Tensor,
    targets: torch.Tensor,
    ask: Ask = NOTHING,
) -> tuple[Values, Teacher | None]:
    head = inner.get_output_embeddings()
    with _only_at(head, positions), _fused(inner, head, targets, ask) as taught:
        found: torch.Tensor = model(**inputs, use_cache=False).logits
    if not ask.of_vocabulary:
        return Values(found.reshape(-1)), next(iter(taught), None)
    there = [True, ask.teacher is not None, ask.entropies, ask.collisions]
    columns = iter(found[0].unbind(-1))
    logps, kls, entropies, collisions = (next(columns) if given else None for given in there)
    assert logps is not None
    values = Values(
        logps,
        kls,
        None if entropies is None else entropies.detach(),
        None if collisions is None else collisions.detach(),
    )
    return values, next(iter(taught), None)


def _by_logits(
    model: torch.nn.Module,
    inner: Any,
    inputs: dict[str, Any],
    positions: torch.Tensor,
    targets: torch.Tensor,
    ask: Ask = NOTHING,
) -> tuple[Values, Teacher | None]:
    logits = _logits_at(model, inner, inputs, positions)
    taught = Logits(logits.detach().cpu(), logits.device) if ask.teach else None
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))  # fp64 models stay fp64
    if not ask.of_vocabulary:
        return Values(-F.cross_entropy(logits, targets, reduction="none")), taught
    values = values_of_logits(logits, targets, teacher=ask.teacher, entropies=ask.entropies, collisions=ask.collisions)
    return values, taught


def _logits_at(model: torch.nn.Module, inner: Any, inputs: dict[str, Any], positions: torch.Tensor) -> torch.Tensor:
    """``(K, V)``, the model's own."""
    head = inner.get_output_embeddings()
    with ExitStack() as stack:
        ran = stack.enter_context(_only_at(head, positions)) if head is not None else []
        found: torch.Tensor = model(**inputs, use_cache=False).logits
    return found[0] if ran else found.flatten(0, 1).index_select(0, positions)


def _fusible(inner: Any) -> bool:
    """Whether the head is a plain linear map that is called as one."""
    head = inner.get_output_embeddings()
    return type(head) in (torch.nn.Linear, NarrowLinear) and "forward" not in vars(head)


_TRIED: dict[object, bool] = {}
"""By model class and by what it does after the head: whether the fused head gives the log-probs of its own logits."""


def _fuses(
    model: torch.nn.Module, inner: Any, inputs: dict[str, Any], positions: torch.Tensor, targets: torch.Tensor
) -> bool:
    """Whether a model of this kind means by its attributes what :data:`_AFTERWARDS` takes them for: tried once, by the
    first batch (of a run: by the few rows that packing is tried on), so that ranks do the same after."""
    kind = _kind(inner)
    if kind not in _TRIED:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            logits = _logits_at(model, inner, inputs, positions)
            wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
            expected = -F.cross_entropy(wide, targets, reduction="none")
            largest = max(wide.amax(-1).abs().tolist(), default=0.0)
            del logits, wide
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            found = _by_fused_head(model, inner, inputs, positions, targets)[0].logps
        narrow = torch.is_autocast_enabled(expected.device.type) or next(model.parameters()).dtype.itemsize < 4
        least = near = 0.05 if narrow else 1e-4
        if narrow:  # the model rounds its logits and the fused head does not: they differ as large logits may
            near = max(near, torch.finfo(torch.bfloat16).eps * largest)
        same = found.shape == expected.shape
        _TRIED[kind] = same and torch.allclose(found, expected, rtol=least, atol=near, equal_nan=True)
    return _TRIED[kind]


def _kind(inner: Any) -> object:
    return type(inner), tuple(sorted(_afterwards(inner).items()))


def is_fused(inner: Any) -> bool:
    """Whether the log-probs of a transformers model come from the fused head, once it has been tried."""
    return _fusible(inner) and _TRIED.get(_kind(inner), False)


def remember(inner: Any, fused: bool) -> None:
    """What :func:`is_fused` said of the same model in another process, which is then not tried again."""
    if _fusible(inner):
        _TRIED.setdefault(_kind(inner), fused)


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
def _fused(inner: Any, head: torch.nn.Linear, targets: torch.Tensor, ask: Ask) -> Iterator[list[Teacher]]:
    """Inside, the head gives log-probs ``(1, K, 1)`` of the targets in place of logits, with a column more for each
    thing that is asked for, and nothing is done to them after it. The model runs whole, so what wraps it (autocast,
    DDP, FSDP) does not see. Gives the teacher that was asked for."""
    taught: list[Teacher] = []
    with _nothing_afterwards(inner) as shape:

        def values(input: torch.Tensor) -> torch.Tensor:
            rows = input[0]
            if ask.teach:
                kind = rows.device.type
                dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else rows.dtype
                taught.append(HeadInputs(rows.detach(), head, shape, dtype))
            if not ask.of_vocabulary:
                logps, _ = token_logps(rows, head.weight, targets, bias=head.bias, shape=shape)
                return logps[None, :, None].clone()  # FSDP2 wants no view from what it shards
            found = values_at(
                rows,
                head.weight,
                targets,
                bias=head.bias,
                shape=shape,
                teacher=ask.teacher,
                entropies=ask.entropies,
                collisions=ask.collisions,
            )
            return torch.stack([value for value in found if value is not None], -1)[None].clone()

        head.forward = values  # type: ignore[method-assign]
        try:
            yield taught
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
