"""Simulated bytes against tensors that a real forward saves."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from alignzoo_estimate.live import Live
from alignzoo_estimate.micro_batch import Lengths, Way, merged
from alignzoo_estimate.shapes import decoder_layers, empty_model
from alignzoo_estimate.simulate import Simulator, _faked, _run

from alignzoo.data.pack import pack
from alignzoo.logprobs import attention
from alignzoo.logprobs.attention import NAME

PAIRS = (Lengths(30, (24, 24)), Lengths(20, (12, 16)), Lengths(26, (9, 20)))
MIXED = (Lengths(30, (24,)), Lengths(20, (12, 16, 7)), Lengths(10, (9, 14)))
"""One response, three and two."""
SIZES = {"vocab_size": 97, "hidden_size": 64, "intermediate_size": 160, "num_attention_heads": 4}
LLAMA = transformers.LlamaConfig(**SIZES, num_key_value_heads=2, num_hidden_layers=5, tie_word_embeddings=True)
WAYS = [
    Way(bf16, rank, checkpointing, True) for bf16 in (False, True) for rank in (0, 4) for checkpointing in (False, True)
]


def _simulator(packed: bool, config: Any = LLAMA) -> Simulator:
    attention.register()
    return Simulator(empty_model(config, attn_implementation=NAME if packed else "sdpa"))


def _saved(model: Any, inputs: dict[str, Any], *, bf16: bool) -> float:
    """Bytes of the storages that autograd keeps of the decoder's forward, weights left out."""
    held: dict[int, torch.UntypedStorage] = {}
    weights = {weight.untyped_storage()._cdata for weight in model.parameters()}
    weights |= {buffer.untyped_storage()._cdata for buffer in model.buffers()}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:
            held[storage._cdata] = storage
        return tensor

    hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    with hooks, torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
        model.base_model(**inputs, use_cache=False)
    return float(sum(storage.nbytes() for storage in held.values()))


@pytest.mark.parametrize("rows", [PAIRS, MIXED], ids=["pairs", "mixed"])
@pytest.mark.parametrize("bf16", [False, True])
def test_activations_of_packed_rows_are_those_that_autograd_saves(bf16: bool, rows: tuple[Lengths, ...]) -> None:
    simulated = _simulator(True).run(Way(bf16, 0, False, True), rows)
    real = transformers.AutoModelForCausalLM.from_config(LLAMA, attn_implementation=NAME).train()
    made = pack([[1] * row.prompt for row in rows], [[[1] * size for size in row.responses] for row in rows])
    inputs = {"input_ids": made.input_ids, "position_ids": made.position_ids, "pack": made}
    inputs["attention_mask"] = torch.ones(1, 1, 1, 1, dtype=torch.bool)
    assert simulated.kept == pytest.approx(_saved(real, inputs, bf16=bf16), rel=0.03)


@pytest.mark.parametrize("rows", [PAIRS, MIXED], ids=["pairs", "mixed"])
@pytest.mark.parametrize("bf16", [False, True])
def test_activations_of_padded_rows_are_those_that_autograd_saves(bf16: bool, rows: tuple[Lengths, ...]) -> None:
    simulated = _simulator(False).run(Way(bf16, 0, False, False), rows)
    real = transformers.AutoModelForCausalLM.from_config(LLAMA, attn_implementation="sdpa").train()
    mask = torch.ones(6, max(row.longest for row in rows), dtype=torch.int64)
    mask[1, 40:] = 0
    inputs = {"input_ids": torch.ones_like(mask), "attention_mask": mask}
    assert simulated.kept == pytest.approx(_saved(real, inputs, bf16=bf16), rel=0.03)


def test_copies_of_weights_are_those_of_all_maps_in_bf16() -> None:
    simulated = _simulator(True).run(Way(True, 0, False, True), PAIRS)
    maps = [w for w in empty_model(LLAMA).model.layers.parameters() if w.dim() == 2]
    assert simulated.copies == 2 * sum(weight.numel() for weight in maps)
    assert _simulator(True).run(Way(False, 0, False, True), PAIRS).copies == 0


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_a_few_layers_say_what_all_of_them_take(way: Way) -> None:
    deep = _simulator(True)
    assert len(decoder_layers(deep._model)) == 3
    mode, model = _faked(empty_model(LLAMA, attn_implementation=NAME), way)
    exact = _run(mode, model, range(5), way, PAIRS)  # all layers, none left out
    assert vars(deep.run(way, PAIRS)) == pytest.approx(vars(exact))


def test_layers_of_several_kinds() -> None:
    kinds = ["sliding_attention", "sliding_attention", "full_attention"]
    sizes = {**SIZES, "num_key_value_heads": 2, "head_dim": 16, "sliding_window": 16}
    config = transformers.Gemma3TextConfig(**sizes, num_hidden_layers=6, layer_types=kinds * 2)
    short = transformers.Gemma3TextConfig(**sizes, num_hidden_layers=3, layer_types=kinds)
    way = Way(False, 0, False, True)
    twice, once = _simulator(True, config).run(way, PAIRS), _simulator(True, short).run(way, PAIRS)
    assert 1.5 < twice.kept / once.kept < 2


def test_checkpointing_an_adapter_and_packing_each_take_less() -> None:
    packed, padded = _simulator(True), _simulator(False)
    plain = packed.run(Way(False, 0, False, True), PAIRS)
    assert packed.run(Way(False, 0, True, True), PAIRS).kept < 0.25 * plain.kept
    assert packed.run(Way(False, 2, False, True), PAIRS).layer < plain.layer
    assert padded.run(Way(False, 0, False, False), PAIRS).kept > 1.3 * plain.kept


def test_live_counts_what_is_held() -> None:
    weight = torch.zeros(8)
    with Live([weight]) as live:
        one = torch.ones(1000)
        view, cast = one[:10], weight.to(torch.bfloat16)
        assert (live.now, live.copies) == (4016, 16)
        del one
        assert live.now == 4016
        del view, cast
        assert (live.now, live.copies, live.peak) == (0, 0, 4016)


def test_merged_pairs_have_the_same_tokens() -> None:
    assert merged(PAIRS, 3) == PAIRS
    assert merged(PAIRS, 2) == (Lengths(50, (36, 40)), Lengths(26, (9, 20)))
    assert merged(MIXED, 1) == (Lengths(60, (45, 30, 7)),)
    one_by_one = _simulator(True)._faked(Way(False, 0, False, True))
    apart, together = (
        _run(*one_by_one, [0, 1], Way(False, 0, False, True), pairs) for pairs in (PAIRS * 4, merged(PAIRS * 4, 6))
    )
    assert vars(together) == pytest.approx(vars(apart), rel=0.03)
