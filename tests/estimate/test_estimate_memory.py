"""Parts of the memory against real tiny models, optimizers and controllers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from alignzoo_estimate.estimate import Estimate, Hardware, Model, Situation, estimate
from alignzoo_estimate.lengths import Data, _mean, _rows, stated
from alignzoo_estimate.memory import CUDA_CONTEXT, GIB, GIVES_BACK, HELD
from alignzoo_estimate.micro_batch import Lengths
from datasets import Dataset

from alignzoo.errors import UsageError
from alignzoo.model.adapters import with_new_adapter
from alignzoo.plan.recipe import Layer
from alignzoo.plan.resolve import require, resolve
from alignzoo.plan.settings import Settings
from alignzoo.plugin import plugins_from
from alignzoo.testing.tiny import CONFIGS
from alignzoo.train.optim import make_optimizer

CONFIG = transformers.LlamaConfig(
    vocab_size=211,
    hidden_size=64,
    intermediate_size=160,
    num_hidden_layers=4,
    num_attention_heads=4,
    num_key_value_heads=2,
    tie_word_embeddings=True,
)
MODEL = Model(CONFIG)
PAIR = Lengths(20, (12, 12))
DATA = Data(PAIR, PAIR, PAIR, "given")
CPU = Hardware(1, False, None, None, "none")


def estimated(hardware: Hardware = CPU, data: Data = DATA, **words: Any) -> Estimate:
    """The estimate of a run of two micro-batches, with these words."""
    given = {"model": "a", "data": "b", "batch-size": 8, "micro-batch-size": 4, "precision": "fp32"}
    if "tokens_per_micro_batch" in words:
        del given["micro-batch-size"]
    flat = {name.replace("__", ".").replace("_", "-"): value for name, value in words.items()}
    plan = require(resolve([Layer("flag", {**given, **flat})], distributed=hardware.sharding))
    return estimate(Situation(plan, MODEL, hardware, data))


def part(found: Estimate, name: str, moment: str = "head") -> float:
    """Bytes of a part at a moment, 0 if it is not there."""
    return next(one for one in found.moments if one.name == moment).parts.get(name, 0.0)


@pytest.mark.parametrize("rank", [0, 4])
@pytest.mark.parametrize("name", ["adamw", "sgd", "rmsprop", "adagrad"])
def test_weights_gradients_and_optimizer_are_those_of_the_real_ones(rank: int, name: str) -> None:
    settings = Settings(optimizer=name, lora_r=rank)
    model = transformers.AutoModelForCausalLM.from_config(CONFIG)
    model = with_new_adapter(model, settings) if rank else model
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    for weight in trained:
        weight.grad = torch.ones_like(weight)
    optimizer = make_optimizer(trained, settings)
    optimizer.step()
    kept = [v for state in optimizer.state.values() for v in state.values() if isinstance(v, torch.Tensor) and v.dim()]
    found = estimated(optimizer=name, lora__r=rank)
    assert part(found, "weights") == sum(weight.nbytes for weight in model.parameters())
    assert part(found, "gradients") == sum(weight.nbytes for weight in trained)
    assert part(found, "optimizer") == pytest.approx(sum(tensor.nbytes for tensor in kept), rel=1e-3)


def test_a_copy_of_the_reference_is_there_without_a_cache_and_an_adapter_only() -> None:
    whole = part(estimated(), "weights")
    assert part(estimated(reference_cache=False), "reference") == whole
    assert part(estimated(), "reference") == 0
    assert part(estimated(reference_cache=False, lora__r=4), "reference") == 0
    assert part(estimated(reference_cache=False, loss="simpo"), "reference") == 0


def test_what_methods_read_beside_log_probs_is_counted() -> None:
    words: dict[str, Any] = {"precision": "bf16", "lora__r": 4}
    plain = estimated(loss="simpo", **words)
    with plugins_from(Path(__file__).parents[1] / "run" / "statistics_plugin.py"):
        kl, entropy, norms = (estimated(loss=f"reads-{name}", **words) for name in ("kls", "entropies", "norms"))
        whole = estimated(loss="reads-kls")
    assert part(kl, "reference") == 2 * 64 * (12 + 12) * 8
    assert part(whole, "reference") == part(whole, "weights") + 4 * 64 * (12 + 12) * 8
    assert part(entropy, "reference") == 0
    forward = plain.work.head / 2
    assert kl.work.head == plain.work.head + 2 * forward
    for found in (kl, entropy):
        assert found.work.reference > 0
        assert "reference before training" not in [m.name for m in found.moments if m.parts.get("activations")]
    assert norms.situation.packed is False
    assert norms.work.layers == pytest.approx(2 * estimated(loss="simpo", packing=False, **words).work.layers)


@pytest.mark.parametrize(
    ("geometry", "kept", "passing"),
    [
        ("plain", 0, 0),
        ("sam", 0, 1),
        ("gsam", 0, 2),
        ("looksam", 1, 1),
        ("msam", 1, 1),
        ("shapo-token", 0, 0),
        ("ema", 1, 0),
    ],
)
def test_copies_of_controllers_are_counted_by_running_them(geometry: str, kept: float, passing: float) -> None:
    copies = estimated(geometry=geometry).situation.added
    assert copies.measured
    assert (copies.kept, copies.passing) == (pytest.approx(kept, abs=0.1), pytest.approx(passing, abs=0.5))


def test_geometry_is_in_units_of_what_is_trained() -> None:
    full, adapted = estimated(geometry="sam"), estimated(geometry="sam", lora__r=4)
    assert part(full, "geometry") == pytest.approx(part(full, "gradients"), rel=0.1)
    assert part(adapted, "geometry") == pytest.approx(part(adapted, "gradients"), rel=0.1)
    assert part(full, "geometry", "optimizer step") == 0


def test_fsdp_divides_what_stands_and_gathers_layers() -> None:
    whole = estimated(Hardware(4, True, None, None, "ddp"), batch_size=32)
    sharded = estimated(Hardware(4, True, None, None, "fsdp"), batch_size=32)
    for name in ("weights", "gradients", "optimizer"):
        assert part(sharded, name) == pytest.approx(part(whole, name) / 4)
    shapes = MODEL.shapes
    assert part(sharded, "gathered weights") == 4 * (shapes.embedding + shapes.other + 2 * shapes.layer)
    assert part(whole, "buckets of gradients") == part(whole, "gradients")
    assert part(sharded, "buckets of gradients") == 0


def test_a_single_micro_batch_has_no_gradients_before_it() -> None:
    one, several = estimated(batch_size=4), estimated(batch_size=8)
    assert (one.situation.micro_batches, several.situation.micro_batches) == (1, 2)
    assert part(one, "gradients", "forward") == 0
    assert part(several, "gradients", "forward") == part(several, "weights")


def test_four_bits_take_an_eighth_of_the_layers_maps() -> None:
    gpu = Hardware(1, True, None, None, "none")
    full, four = (estimated(gpu, lora__r=4, quantize=how) for how in ("none", "4bit"))
    maps = sum(one.parameters for one in MODEL.shapes.maps)
    assert part(full, "weights") - part(four, "weights") == pytest.approx(maps * (4 - 0.516), rel=0.01)
    assert part(four, "bf16 copies of weights") == 0


def test_the_total_is_the_sum_of_the_parts_with_the_overhead() -> None:
    found = estimated(Hardware(1, True, None, None, "none"))
    for moment in found.moments:
        assert moment.total == pytest.approx(sum(moment.parts.values()))
        assert moment.parts["allocator and context"] > CUDA_CONTEXT
    assert found.peak.total == max(moment.total for moment in found.moments)


def test_malloc_holds_most_of_what_a_forward_frees_unless_it_gives_back(monkeypatch: pytest.MonkeyPatch) -> None:
    found = estimated(lora__r=4)
    held = MODEL.held(found.situation.way, DATA.micro_batch(4, packed=True))
    assert 0.5 * held.passed < part(found, HELD) < held.passed
    assert part(estimated(Hardware(1, True, None, None, "none"), lora__r=4), HELD) == 0
    monkeypatch.setenv(GIVES_BACK, "1048576")
    assert part(estimated(lora__r=4), HELD) == 0


def test_work_is_what_the_formulas_say() -> None:
    pairs, tokens, responses = 8, 44, 24
    linear = 4 * (2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 160)
    scores = 32**2 / 2 + 12 * 32
    found = estimated().work
    assert found.layers == 6 * linear * pairs * tokens
    assert found.attention == pytest.approx(3.5 * 4 * 4 * 64 * scores * pairs)
    assert found.head == 6 * 64 * 211 * responses * pairs
    assert (found.reference, found.forwards) == (0, 0)
    assert found.total == found.layers + found.attention + found.head


def test_work_of_passes_checkpointing_reference_and_coupled_objectives() -> None:
    plain = estimated().work
    forward = plain.layers / 3 + plain.attention / 3.5 + plain.head / 3
    assert estimated(geometry="sam").work.total == pytest.approx(2 * plain.total)
    assert estimated(geometry="sam", **{"geometry.interval": 4}).work.total == pytest.approx(1.25 * plain.total)
    assert estimated(activation_checkpointing=True).work.layers == pytest.approx(plain.layers * 4 / 3)
    assert estimated(reference_cache=False).work.total == pytest.approx(plain.total + forward)
    assert estimated(robust=["drdpo"]).work.total == pytest.approx(plain.total + forward)
    assert estimated(robust=["drdpo"], micro_batch_size=8).work.total == pytest.approx(plain.total)
    assert estimated(geometry="msam").work.total == pytest.approx(plain.total + forward)
    assert estimated(geometry="msam", robust=["drdpo"]).work.total == pytest.approx(plain.total + 2 * forward)
    assert estimated(lora__r=2).work.layers < 0.8 * plain.layers
    assert estimated(packing=False).work.layers == pytest.approx(plain.layers * 64 / 44)


def test_lengths_that_are_stated() -> None:
    words = {"model": "a", "data": "b", "max-length": 300, "max-prompt-length": 200}
    plan = require(resolve([Layer("flag", words)]))
    assert stated(plan, None, None, None).source == "assumed"
    given = stated(plan, 100, 50, 300)
    assert (given.mean, given.longest, given.source) == (Lengths(100, (50, 50)), Lengths(200, (100, 100)), "given")
    assert stated(plan, 100, None, None).source == "partly assumed"
    with pytest.raises(UsageError, match="--prompt-tokens 500 is more than --max-prompt-length"):
        stated(plan, 500, 50, None)
    with pytest.raises(UsageError, match="tokens are more than --max-length"):
        stated(plan, 100, 50, 5000)
    with pytest.raises(UsageError, match="less than the mean"):
        stated(plan, 100, 50, 120)


def test_changes_are_ranked_and_each_is_what_its_own_estimate_says(monkeypatch: pytest.MonkeyPatch) -> None:
    from alignzoo_estimate.advice import changes, together

    monkeypatch.setenv(GIVES_BACK, "1048576")
    layers = [Layer("flag", {"model": "a", "data": "b", "packing": False, "reference-cache": False})]
    plan = require(resolve(layers))
    found = estimate(Situation(plan, MODEL, Hardware(1, False, 0.006 * GIB, None, "none"), DATA))
    advice = changes(found, layers)
    said = {one.words: one for one in advice}
    assert [one.total for one in advice] == sorted(one.total for one in advice)
    assert all(one.total < found.peak.total for one in advice)
    for words, values in {
        "--activation-checkpointing": {"activation-checkpointing": True},
        "--packing": {"packing": True},
        "--micro-batch-size 1": {"micro-batch-size": 1},
        "--lora.r 8": {"lora.r": 8},
    }.items():
        changed = require(resolve([*layers, Layer("flag", values)]))
        assert said[words].total == estimate(Situation(changed, MODEL, CPU, DATA)).peak.total
    tight = replace(found.situation, hardware=replace(CPU, memory=0.95 * advice[0].total))
    paths = together(replace(found, situation=tight), layers)
    assert paths, "no single change is enough"
    for how, path in paths.items():
        assert path[-1].estimate.fits
        assert not any(one.estimate.fits for one in path[:-1])
        assert how == "with an adapter" or not any(one.adapts for one in path)


def test_the_largest_micro_batch_fits_and_a_tenth_more_does_not() -> None:
    from alignzoo_estimate.advice import largest

    memory = estimated(micro_batch_size=16, batch_size=64).peak.total
    tokens = largest(estimated(Hardware(1, False, memory, None, "none")))
    assert tokens is not None
    assert 14 * 44 <= tokens <= 16 * 44
    assert estimated(tokens_per_micro_batch=tokens, batch_size=64).peak.total <= memory
    assert largest(estimated(Hardware(1, False, 1000.0, None, "none"))) is None
    assert largest(estimated(CPU)) is None


FEW = {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4}
MORE = {
    "mixtral": lambda: transformers.MixtralConfig(**FEW, num_key_value_heads=2, intermediate_size=48),
    "opt": lambda: transformers.OPTConfig(**FEW, ffn_dim=64, word_embed_proj_dim=32),
    "bloom": lambda: transformers.BloomConfig(vocab_size=64, hidden_size=32, n_layer=3, n_head=4),
    "mamba": lambda: transformers.MambaConfig(vocab_size=64, hidden_size=32, num_hidden_layers=3),
}


@pytest.mark.parametrize("family", [*CONFIGS, *MORE])
def test_every_family_can_be_planned(family: str) -> None:
    model = Model({**CONFIGS, **MORE}[family]())
    plan = require(resolve([Layer("flag", {"model": "a", "data": "b", "batch-size": 8})]))
    found = estimate(Situation(plan, model, CPU, DATA))
    assert found.situation.packed == (family not in ("gemma2", "bloom", "mamba"))
    assert part(found, "activations") > part(found, "weights") / 4


def test_the_mean_row_has_the_tokens_of_all_rows() -> None:
    equal = [Lengths(4, (2, 8)), Lengths(6, (4, 6))]
    assert _mean(equal) == Lengths(5, (3, 7))
    varied = [Lengths(4, (6,)), Lengths(6, (4, 5, 3))]
    assert _mean(varied) == Lengths(5, (4, 4))
    assert 2 * _mean(varied).packed == pytest.approx(sum(row.packed for row in varied), abs=2)  # whole tokens


def test_rows_of_data_have_their_mismatched_responses_behind_their_own() -> None:
    data = Dataset.from_dict({"prompt_ids": [[1], [2, 3]], "response_ids": [[[4]], [[5, 5], [6] * 3]]})
    assert _rows(data, None) == [Lengths(1, (1,)), Lengths(2, (2, 3))]
    assert _rows(data, np.array([1, 0])) == [Lengths(1, (1, 2)), Lengths(2, (2, 3, 1, 1))]


def test_work_goes_by_the_responses_of_a_row() -> None:
    for row in (Lengths(20, (12,)), Lengths(20, (12, 7, 9))):
        packed = estimated(data=Data(row, row, row, "given")).work
        padded = estimated(data=Data(row, row, row, "given"), packing=False).work
        assert packed.head == padded.head == 6 * 64 * 211 * sum(row.responses) * 8
        assert padded.layers / packed.layers == pytest.approx(len(row.responses) * 32 / row.packed)
