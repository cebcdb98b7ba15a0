"""Forward and backward of a micro-batch on fake tensors: shapes flow through the real modules, and bytes are counted.

Fake tensors dispatch to CPU kernels and save what real tensors save. Only a few of the decoder layers are run: each
further layer of a kind adds the same amount.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from alignzoo_estimate.live import Live
from alignzoo_estimate.micro_batch import Bytes, Lengths, Way, merged
from alignzoo_estimate.shapes import decoder_layers

SEGMENTS, SEGMENTS_FROZEN = 4, 4
"""Up to this many packed rows are simulated individually: with gradients, and without."""
DEVICE = "cpu"
"""The device whose kernels are assumed: those of others save the same tensors, or slightly less."""


class Simulator:
    """Runs micro-batches of one model; results are cached.

    Args:
        model: on the meta device; only a few of its decoder layers are left afterwards.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        layers = decoder_layers(model)
        kinds: dict[Any, list[int]] = {}
        for index, layer in enumerate(layers):
            kinds.setdefault(_signature(layer), []).append(index)
        few = 2 if len(kinds) == 1 else 1
        base = sorted(index for found in kinds.values() for index in found[:few])
        more = [(found[few], len(found) - few) for found in kinds.values() if len(found) > few]
        left = sorted([*base, *(index for index, _ in more)])
        self._base = [left.index(index) for index in base]
        self._more = [(left.index(index), times) for index, times in more]
        _keep(layers, left)
        self._models: dict[Way, tuple[FakeTensorMode, Any]] = {}
        self._found: dict[tuple[Way, tuple[Lengths, ...]], Bytes] = {}
        self._frozen: dict[tuple[Way, tuple[Lengths, ...]], float] = {}

    def run(self, way: Way, rows: Sequence[Lengths]) -> Bytes:
        """The bytes of a micro-batch of these rows."""
        key = (way, merged(rows, SEGMENTS) if way.packed else tuple(rows))
        if key not in self._found:
            mode, model = self._faked(way)
            found = total = _run(mode, model, self._base, way, key[1])
            for index, times in self._more:
                deeper = _run(mode, model, sorted([*self._base, index]), way, key[1])
                total = total.plus(deeper.plus(found, -1), times)
            self._found[key] = total
        return self._found[key]

    def _faked(self, way: Way) -> tuple[FakeTensorMode, Any]:
        if way not in self._models:
            self._models[way] = _faked(copy.deepcopy(self._model), way)
        return self._models[way]

    def run_frozen(self, way: Way, rows: Sequence[Lengths]) -> float:
        """Peak bytes of a forward pass without gradients, independent of the model's depth."""
        key = (way, merged(rows, SEGMENTS_FROZEN) if way.packed else tuple(rows))
        if key not in self._frozen:
            self._frozen[key] = self._run_frozen(*key)
        return self._frozen[key]

    def _run_frozen(self, way: Way, rows: Sequence[Lengths]) -> float:
        mode, model = self._faked(way)
        layers = decoder_layers(model)
        with _only(layers, self._base), mode, torch.no_grad(), Live(list(model.parameters())) as live:
            inputs, positions = _packed(rows) if way.packed else _padded(rows)
            _values(model, inputs, positions, way)
            return float(live.peak)


def _signature(layer: nn.Module) -> Any:
    shapes = tuple((name, tuple(parameter.shape)) for name, parameter in layer.named_parameters())
    return type(layer), shapes, getattr(layer, "attention_type", None)


def _faked(model: Any, way: Way) -> tuple[FakeTensorMode, Any]:
    """The model with its adapter, as a run prepares it, on fake tensors of the device."""
    from alignzoo.model.modes import checkpoint_in_eval_mode, disable_dropout

    if way.rank:
        model = _with_adapter(model, way.rank)
    disable_dropout(model)
    if way.checkpointing:
        _checkpoint(model)
        checkpoint_in_eval_mode(model)
    mode, made = FakeTensorMode(allow_non_fake_inputs=True), dict[int, torch.Tensor]()
    with mode:
        for module in model.modules():
            for name, old in module._parameters.items():
                if old is not None:
                    if id(old) not in made:
                        dtype = torch.bfloat16 if way.frozen_bf16 and not old.requires_grad else old.dtype
                        data = torch.empty(old.shape, dtype=dtype, device=DEVICE)
                        made[id(old)] = nn.Parameter(data, requires_grad=old.requires_grad)
                    module._parameters[name] = made[id(old)]
            for name, buffer in module._buffers.items():
                if buffer is not None:
                    module._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype, device=DEVICE)
    return mode, model.train()


def _with_adapter(model: Any, rank: int) -> Any:
    from peft import LoraConfig, get_peft_model

    from alignzoo.model.explained import quiet

    config = LoraConfig(r=rank, target_modules="all-linear", task_type="CAUSAL_LM")
    with quiet():
        return get_peft_model(model, config, low_cpu_mem_usage=True)


def _checkpoint(model: Any) -> None:
    from alignzoo.model.explained import quiet

    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    with quiet():
        inner.gradient_checkpointing_enable(
            gradient_checkpointing_kwargs={"use_reentrant": False, "preserve_rng_state": False}
        )


def _keep(layers: nn.ModuleList, indices: Sequence[int]) -> None:
    """Keep only these layers, renumbered."""
    kept = [layers[index] for index in indices]
    layers._modules.clear()
    layers._modules.update({str(i): layer for i, layer in enumerate(kept)})


@contextmanager
def _only(layers: nn.ModuleList, indices: Sequence[int]) -> Iterator[None]:
    """Inside, the model has only these layers."""
    everything = dict(layers._modules)
    _keep(layers, indices)
    try:
        yield
    finally:
        layers._modules.clear()
        layers._modules.update(everything)


def _run(mode: FakeTensorMode, model: Any, indices: Sequence[int], way: Way, rows: Sequence[Lengths]) -> Bytes:
    """The bytes at the moments of :class:`Bytes`, for a model with only these layers."""
    layers, marks = decoder_layers(model), dict[str, float]()
    with _only(layers, indices), mode:
        inputs, positions = _packed(rows) if way.packed else _padded(rows)
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        for parameter in trained:
            parameter.grad = torch.empty_like(parameter)
        leaves = [*model.parameters(), *(parameter.grad for parameter in trained)]
        with Live(leaves) as live:

            def mark(name: str) -> Callable[[torch.Tensor], None]:
                def note(_grad: torch.Tensor) -> None:
                    marks[name] = live.restart()

                return note

            def watch(_module: Any, given: tuple[Any, ...], words: Any) -> None:
                hidden = given[0] if given else words["hidden_states"]
                if hidden.requires_grad:
                    hidden.register_hook(mark("layer"))

            handle = layers[-1].register_forward_pre_hook(watch, with_kwargs=True)
            state: dict[str, float] = {}

            def between(hidden: torch.Tensor) -> None:
                state.update(forward=live.restart(), kept=float(live.now), copies=float(live.copies))
                state.update(passed=float(live.small - live.small_now))
                if hidden.requires_grad:
                    hidden.register_hook(mark("head"))

            values = _values(model, inputs, positions, way, between)
            handle.remove()
            state.update(head=live.restart(), saved_copies=float(live.copies))
            values.sum().backward()
            last = live.restart()
    return Bytes(**state, turn=marks.get("head", last), layer=marks.get("layer", last))


def _values(
    model: Any,
    inputs: dict[str, Any],
    positions: torch.Tensor,
    way: Way,
    between: Callable[[torch.Tensor], None] = lambda hidden: None,
) -> torch.Tensor:
    """Log-probs as in :mod:`alignzoo.logprobs.logps`; ``between`` receives the hidden states before the head."""
    from alignzoo.logprobs.head import chunk_on, token_logps

    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    head = inner.get_output_embeddings()
    with torch.autocast(DEVICE, dtype=torch.bfloat16, enabled=way.bf16, cache_enabled=way.cached):
        hidden = inner.base_model(**inputs, use_cache=False).last_hidden_state
        between(hidden)
        chosen = hidden.flatten(0, 1).index_select(0, positions)
        targets = torch.zeros(len(positions), dtype=torch.int64)
        chunk = chunk_on("cuda" if way.cuda else DEVICE)
        return token_logps(chosen, head.weight, targets, bias=getattr(head, "bias", None), chunk=chunk)[0]


def _packed(rows: Sequence[Lengths]) -> tuple[dict[str, Any], torch.Tensor]:
    """The rows packed into one, as :func:`alignzoo.logprobs.logps.packed_logps` passes them to the model."""
    from alignzoo.data.pack import pack

    made = pack([[0] * one.prompt for one in rows], [[[0] * size for size in one.responses] for one in rows])
    inputs = {
        "input_ids": torch.zeros(made.input_ids.shape, dtype=torch.int64),
        "position_ids": torch.zeros(made.position_ids.shape, dtype=torch.int64),
        "attention_mask": torch.ones(1, 1, 1, 1, dtype=torch.bool),
        "pack": made,
    }
    return inputs, torch.zeros(len(made.predicting), dtype=torch.int64)


def _padded(rows: Sequence[Lengths]) -> tuple[dict[str, Any], torch.Tensor]:
    """One sequence per response, padded to the longest."""
    shape = (sum(len(row.responses) for row in rows), max(row.longest for row in rows))
    inputs = {
        "input_ids": torch.zeros(shape, dtype=torch.int64),
        "attention_mask": torch.ones(shape, dtype=torch.int64),
        "position_ids": torch.zeros(shape, dtype=torch.int64),
    }
    return inputs, torch.zeros(sum(row.response for row in rows), dtype=torch.int64)
