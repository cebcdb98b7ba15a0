"""Pairs in one row, each prompt once: the padded path's numbers in every family, or a stated refusal."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import wraps
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from steps import objective

from alignzoo import load_method
from alignzoo.data.collate import TokenBatch
from alignzoo.data.lengths import Lengths
from alignzoo.data.pack import Pack, pack_of
from alignzoo.logprobs import attention
from alignzoo.logprobs.forward import choose_forward, goes_by_batch, use_packing, worth_trying
from alignzoo.logprobs.logps import packed_pair_logps, padded_pair_logps
from alignzoo.report import Reporter
from alignzoo.step.setup import SetupContext
from alignzoo.testing.steps import context, gradients
from alignzoo.testing.tiny import CONFIGS, SMALL, VOCAB, batch_of, pair_rows, tiny_model, with_adapter
from alignzoo.train.batches import Sizes

WINDOW = 6
GATED = {**SMALL, "num_hidden_layers": 4}
MORE: dict[str, Any] = {
    "mistral-window": lambda: transformers.MistralConfig(**SMALL, sliding_window=WINDOW),
    "gemma2-window": lambda: transformers.Gemma2Config(**GATED, head_dim=16, sliding_window=WINDOW),
    "gemma3-window": lambda: transformers.Gemma3TextConfig(
        **GATED, head_dim=16, sliding_window=WINDOW, layer_types=["sliding_attention", "full_attention"] * 2
    ),
    "olmo2": lambda: transformers.Olmo2Config(**SMALL),
    "cohere": lambda: transformers.CohereConfig(**SMALL, logit_scale=0.3),
    "granite": lambda: transformers.GraniteConfig(**SMALL, logits_scaling=3.0),
    "qwen3-moe": lambda: transformers.Qwen3MoeConfig(
        **SMALL, head_dim=16, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=32
    ),
    "gpt-oss": lambda: transformers.GptOssConfig(
        **SMALL, head_dim=16, num_local_experts=4, num_experts_per_tok=2, sliding_window=WINDOW,
        layer_types=["sliding_attention", "full_attention"],
    ),
    "opt": lambda: transformers.OPTConfig(
        vocab_size=VOCAB, hidden_size=32, ffn_dim=48, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=128, word_embed_proj_dim=32,
    ),
}  # fmt: skip
ALL = {**CONFIGS, **MORE}
UNPACKED: dict[str, Any] = {
    "bloom": lambda: transformers.BloomConfig(vocab_size=VOCAB, hidden_size=32, n_layer=2, n_head=4),
    "mamba": lambda: transformers.MambaConfig(vocab_size=VOCAB, hidden_size=32, num_hidden_layers=2),
    "llama4": lambda: transformers.Llama4TextConfig(
        **SMALL,
        head_dim=8,
        intermediate_size_mlp=48,
        num_local_experts=2,
        attention_chunk_size=4,
        attn_temperature_tuning=False,
    ),
}
ROWS = pair_rows(5, seed=3)


def model_of(family: str, *, dtype: torch.dtype = torch.float32) -> Any:
    """A random model that a token's neighbours and its distance to them matter to."""
    torch.manual_seed(0)
    config = {**ALL, **UNPACKED}[family]()
    model = transformers.AutoModelForCausalLM.from_config(config).to(dtype).eval()
    if family not in UNPACKED:
        with torch.no_grad():
            for weight in model.parameters():
                if weight.dim() == 2:
                    weight.normal_(std=0.3)
    return model


def same_gradients(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    """Equal to the rounding of what the models compute in fp32 (norms, rotations) also where they are in float64."""
    assert found.keys() == expected.keys()
    largest = max(float(gradient.abs().max()) for gradient in expected.values())
    for name, gradient in found.items():
        assert float((gradient - expected[name]).abs().max()) <= 1e-5 * largest, name


@pytest.mark.parametrize("family", ALL)
def test_packed_equals_padded(family: str) -> None:
    model, batch = model_of(family), batch_of(ROWS)
    padded = padded_pair_logps(model, batch, tokens=True)
    choice = choose_forward(model, batch, tokens=True)
    assert choice.packed, choice.why
    packed = choice.forward(model, batch)
    assert packed.present().keys() == padded.present().keys()
    for name, value in packed.present().items():
        torch.testing.assert_close(value, getattr(padded, name), rtol=1e-5, atol=1e-5, msg=name)
    after = padded_pair_logps(model, batch)  # the packed attention without a pack is the one that was there before
    assert torch.equal(after.chosen_logps, padded.chosen_logps)


@pytest.mark.parametrize("family", ALL)
def test_packed_gradients_equal_padded_ones(family: str) -> None:
    narrow = family in ("qwen3-moe", "gpt-oss", "gemma2-window")  # which transformers does not compute in float64
    model, batch = model_of(family, dtype=torch.float32 if narrow else torch.float64), batch_of(ROWS)
    cotangents = torch.linspace(-1, 2, len(ROWS))

    def gradient(forward: Any) -> dict[str, torch.Tensor]:
        pairs = forward(model, batch)
        ((pairs.chosen_logps - 0.5 * pairs.rejected_logps) * cotangents).sum().backward()
        return gradients(model)

    expected = gradient(padded_pair_logps)
    found = gradient(choose_forward(model, batch).forward)
    same_gradients(found, expected)


@pytest.mark.parametrize(
    ("family", "why"), [("bloom", "ALiBi"), ("mamba", "recurrent"), ("llama4", "come out differently")]
)
def test_what_cannot_be_packed_says_why_and_is_computed_padded(family: str, why: str) -> None:
    model, batch = model_of(family), batch_of(ROWS)
    expected, implementation = padded_pair_logps(model, batch), model.config._attn_implementation
    choice = choose_forward(model, batch)
    assert not choice.packed
    assert choice.why.startswith("packing is off: ")
    assert why in choice.why
    assert "\n" not in choice.why
    assert torch.equal(choice.forward(model, batch).chosen_logps, expected.chosen_logps)
    assert model.config._attn_implementation == implementation


def test_packing_that_is_not_wanted_leaves_the_model_alone() -> None:
    model = tiny_model()
    choice = choose_forward(model, batch_of(ROWS), packing=False)
    assert not choice.packed
    assert model.config._attn_implementation == "sdpa"


@pytest.mark.parametrize("wrong", ["positions", "sight"])
def test_the_check_sees_what_is_wrong(wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Positions that do not start again, or a rejected response that sees the chosen one, are not taken."""
    if wrong == "sight":
        monkeypatch.setattr(attention, "_by_segments", causal)
        monkeypatch.setattr(
            Pack, "dense_mask", lambda self, window=None: torch.ones(*[self.input_ids.shape[1]] * 2).tril().bool()
        )
    model, batch = model_of("llama"), batch_of(ROWS)
    if wrong == "positions":
        made = pack_of(batch)
        batch = replace(batch, pack=replace(made, position_ids=torch.arange(made.input_ids.shape[1])[None]))
    choice = choose_forward(model, batch)
    assert not choice.packed
    assert "come out differently" in choice.why


def causal(query: Any, key: Any, value: Any, pack: Any, window: Any, scaling: Any, dropout: Any) -> torch.Tensor:
    found = torch.nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True)
    return found.transpose(1, 2)


def test_a_pack_of_a_batch_that_came_without_one_is_the_same() -> None:
    batch = batch_of(ROWS)
    assert batch.pack is not None
    derived = pack_of(replace(batch, pack=None))
    assert derived.segments == batch.pack.segments
    for name in ("input_ids", "position_ids", "predicting", "targets", "rows", "columns"):
        assert torch.equal(getattr(derived, name), getattr(batch.pack, name)), name


def test_a_pack_holds_each_prompt_once_and_no_padding() -> None:
    made = pack_of(batch_of(ROWS))
    expected = [token for row in ROWS for part in ("prompt", "chosen", "rejected") for token in row[f"{part}_ids"]]
    assert made.input_ids[0].tolist() == expected
    assert made.targets.tolist() == [t for row in ROWS for part in ("chosen", "rejected") for t in row[f"{part}_ids"]]


@pytest.mark.parametrize("window", [None, 4])
def test_the_masks_of_parts_flex_attention_and_the_whole_row_agree(window: int | None) -> None:
    made = pack_of(batch_of(ROWS))
    whole = made.dense_mask(window)
    for i, segment in enumerate(made.segments):
        prompt, first, second = segment.places()
        size = segment.prompt + segment.chosen
        mask = made.first_mask(i, window)
        assert torch.equal(torch.ones(size, size).tril().bool() if mask is None else mask, whole[first, first])
        seen = torch.cat([whole[second, prompt], whole[second, second]], 1)
        assert torch.equal(made.second_mask(i, window), seen)
        others = whole.clone()
        others[first, first] = others[second, prompt] = others[second, second] = False
        assert not others[segment.start : segment.end].any()
    at = torch.arange(whole.shape[0])
    told = made.block_mask(window).mask_mod(torch.zeros(()), torch.zeros(()), at[:, None], at[None, :])
    assert torch.equal(told, whole)


def test_flex_attention_gives_the_same_numbers() -> None:
    """Uncompiled, on a CPU: the same call that a GPU compiles."""
    made = pack_of(batch_of(ROWS))
    size = made.input_ids.shape[1]
    draw = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(1, heads, size, 8, generator=draw) for heads in (4, 2, 2))
    expected = attention._by_segments(query, key, value, made, 4, 0.3, 0.0)
    torch.testing.assert_close(attention._flex(query, key, value, made, 4, 0.3), expected)


def test_flex_attention_reaches_every_block_that_holds_something_to_see() -> None:
    from torch.nn.attention.flex_attention import create_block_mask

    made = pack_of(batch_of(pair_rows(40, seed=1)))
    size = made.input_ids.shape[1]
    assert size > 3 * 128
    mask = made.block_mask(None)
    reached = mask.to_dense()[0, 0].bool()
    needed = create_block_mask(mask.mask_mod, None, None, size, size, device="cpu").to_dense()[0, 0].bool()
    assert torch.equal(reached & needed, needed)
    assert not reached.triu(1).any()
    assert not reached.tril(-2).any(), "the pairs are short: a block sees itself and the one before"


@pytest.mark.gpu
def test_on_a_gpu_flex_attention_is_taken_and_gives_the_padded_numbers() -> None:
    model, batch = tiny_model(dtype=torch.float32).cuda(), batch_of(ROWS).to("cuda")
    expected = padded_pair_logps(model, batch)
    choice = choose_forward(model, batch)
    assert choice.packed, choice.why
    torch.testing.assert_close(choice.forward(model, batch).chosen_logps, expected.chosen_logps, rtol=1e-4, atol=1e-4)


def test_a_model_without_packed_attention_is_not_packed_in_silence() -> None:
    with pytest.raises(RuntimeError, match="attention is not the packed one"):
        packed_pair_logps(tiny_model(), batch_of(ROWS))


def test_a_response_without_tokens_raises() -> None:
    batch = batch_of(ROWS)
    empty = replace(batch, pack=None, response_mask=batch.response_mask.index_fill(0, torch.tensor([6]), False))
    model = tiny_model()
    use_packing(model)
    with pytest.raises(ValueError, match="pair 1: the rejected response has no token"):
        packed_pair_logps(model, empty)


@pytest.mark.parametrize("variant", ["full", "lora", "checkpointed", "lora checkpointed"])
@pytest.mark.parametrize(
    ("geometry", "options"),
    [("plain", {}), ("shapo-token", {"interval": 1, "select": "random"}), ("sam", {"interval": 1})],
)
def test_a_step_packed_is_the_step_padded(variant: str, geometry: str, options: dict[str, Any]) -> None:
    found = []
    for packed in (False, True):
        model = tiny_model()
        if packed:
            use_packing(model)
        if "checkpointed" in variant:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        if "lora" in variant:
            model = with_adapter(model)
        model.train()
        controller = load_method("geometry", geometry, **options)
        controller.setup(SetupContext(model, 0, Reporter(), lambda given: None))
        step = context(model, [batch_of(ROWS[:3]), batch_of(ROWS[3:])], objective("dpo", "drdpo", coupled=True))
        loss = controller.step(step)
        found.append((loss.value, gradients(model)))
    (value, expected), (packed_value, gradient) = found
    torch.testing.assert_close(packed_value, value)
    same_gradients(gradient, expected)


def test_fifty_steps_packed_and_padded_have_the_same_losses() -> None:
    losses = []
    for packed in (False, True):
        model = tiny_model(dtype=torch.float32)
        if packed:
            use_packing(model)
        reference = copy.deepcopy(model)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
        controller, goal, line = load_method("geometry", "plain"), objective("dpo"), []
        for step in range(50):
            batches = [batch_of(pair_rows(4, seed=step % 7))]
            line.append(float(controller.step(context(model, batches, goal, reference=reference, step=step)).value))
            optimizer.step()
            optimizer.zero_grad()
        losses.append(line)
    assert losses[0][-1] < 0.9 * losses[0][0]
    assert losses[1] == pytest.approx(losses[0], abs=1e-4)


def test_bf16_autocast_differs_from_fp32_by_its_rounding_only() -> None:
    model, batch = tiny_model(dtype=torch.float32), batch_of(ROWS)
    use_packing(model)
    exact = packed_pair_logps(model, batch)
    with torch.autocast("cpu", torch.bfloat16):
        rounded, padded = packed_pair_logps(model, batch), padded_pair_logps(model, batch)
    assert rounded.chosen_logps.dtype == torch.float32
    torch.testing.assert_close(rounded.chosen_logps, exact.chosen_logps, rtol=1e-2, atol=0)
    torch.testing.assert_close(rounded.chosen_logps, padded.chosen_logps, rtol=1e-2, atol=0)


@pytest.mark.parametrize(
    ("family", "change", "why"),
    [
        ("llama4", {"attention_chunk_size": 16, "attn_temperature_tuning": False}, "come out differently"),
        ("llama4", {"attn_temperature_tuning": True}, "attn_temperature_tuning"),
        ("gpt-neo", {}, "come out differently"),
    ],
)
def test_what_goes_wrong_with_long_pairs_only_is_tried_on_a_long_one(
    family: str, change: dict[str, Any], why: str
) -> None:
    short = pair_rows(4, seed=3)
    draw = torch.Generator().manual_seed(5)
    long = {"pair_id": 9, **{f"{part}_ids": torch.randint(3, VOCAB, (30,), generator=draw).tolist() for part in PARTS}}
    if family == "gpt-neo":
        config = transformers.GPTNeoConfig(
            vocab_size=VOCAB, hidden_size=32, num_layers=2, num_heads=4, max_position_embeddings=128,
            intermediate_size=48, attention_types=[[["global", "local"], 1]], window_size=24,
        )  # fmt: skip
    else:
        config = UNPACKED["llama4"]()
    for name, value in change.items():
        setattr(config, name, value)
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() == 2:
                weight.normal_(std=0.3)
    rows = [*short, long]
    lengths = Lengths(*(np.array([f(row) for row in rows]) for f in (packed_tokens, longest_tokens)))
    tried = [rows[i] for i in worth_trying(model, lengths, range(4))]
    choice = choose_forward(model, batch_of(tried))
    assert not choice.packed
    assert why in choice.why


PARTS = ("prompt", "chosen", "rejected")


def packed_tokens(row: dict[str, Any]) -> int:
    return sum(len(row[f"{part}_ids"]) for part in PARTS)


def longest_tokens(row: dict[str, Any]) -> int:
    return len(row["prompt_ids"]) + max(len(row["chosen_ids"]), len(row["rejected_ids"]))


def test_a_plain_model_is_tried_on_two_pairs_of_the_first_step() -> None:
    lengths = Lengths(np.array([10, 30, 20, 99]), np.array([8, 20, 15, 60]))
    assert worth_trying(tiny_model(), lengths, [0, 1, 2]) == [0, 1]


def test_a_model_that_scales_its_logits_in_its_own_way_gets_its_own_logits() -> None:
    """HyperCLOVA X multiplies where Granite divides."""
    model = model_of("llama")
    model.config.logits_scaling = 0.25
    plain = type(model)

    class Multiplying(plain):  # type: ignore[misc, valid-type]
        @wraps(plain.forward)
        def forward(self, *given: Any, **named: Any) -> Any:
            found = plain.forward(self, *given, **named)
            found.logits = found.logits * self.config.logits_scaling
            return found

    model.__class__ = Multiplying
    row = ROWS[0]
    ids = torch.tensor([[*row["prompt_ids"], *row["chosen_ids"]]])
    with torch.no_grad():
        logps = model(input_ids=ids).logits[0, :-1].log_softmax(-1).gather(-1, ids[0, 1:, None])[:, 0]
    expected = logps[len(row["prompt_ids"]) - 1 :].sum()
    batch = batch_of(ROWS)
    torch.testing.assert_close(padded_pair_logps(model, batch).chosen_logps[0], expected, rtol=1e-5, atol=1e-5)
    choice = choose_forward(model, batch)
    assert choice.packed
    torch.testing.assert_close(choice.forward(model, batch).chosen_logps[0], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "longest", "found"),
    [("longrope", 20, None), ("longrope", 80, "longrope"), ("dynamic", 200, "dynamic"), ("default", 500, None)],
)
def test_positions_that_go_by_the_batch_are_known(kind: str, longest: int, found: str | None) -> None:
    rope: dict[str, Any] = {"rope_type": kind, "rope_theta": 1e4}
    if kind == "longrope":
        rope |= {"short_factor": [1.0] * 4, "long_factor": [2.0] * 4, "original_max_position_embeddings": 64}
    if kind == "dynamic":
        rope |= {"factor": 2.0}
    family = transformers.Phi3Config if kind == "longrope" else transformers.LlamaConfig
    original = {"original_max_position_embeddings": 64} if kind == "longrope" else {}
    config = family(**SMALL, rope_parameters=rope, **original)
    model = transformers.AutoModelForCausalLM.from_config(config)
    assert goes_by_batch(model, longest) == found


@contextmanager
def counting_prompts(model: Any) -> Iterator[list[int]]:
    seen: list[int] = []
    handle = model.get_input_embeddings().register_forward_hook(
        lambda m, i, output: seen.append(output.shape[:2].numel())
    )
    try:
        yield seen
    finally:
        handle.remove()


def test_packing_computes_fewer_tokens() -> None:
    model, batch = tiny_model(), batch_of(ROWS)
    use_packing(model)
    with counting_prompts(model) as seen:
        packed_pair_logps(model, batch)
        padded_pair_logps(model, batch)
    expected = sum(len(row[f"{part}_ids"]) for row in ROWS for part in ("prompt", "chosen", "rejected"))
    assert seen == [expected, batch.input_ids.numel()]
    assert seen[0] < seen[1]


LENGTHS = Lengths(torch.tensor([9, 30, 5, 14, 8, 21, 3, 50]).numpy(), torch.tensor([6, 20, 4, 9, 5, 15, 2, 40]).numpy())


@pytest.mark.parametrize("packed", [True, False])
def test_a_budget_of_tokens_is_kept_and_no_pair_is_lost(packed: bool) -> None:
    sizes = Sizes(4, 48, packed)
    [groups] = sizes.cut([list(range(8))], LENGTHS)
    assert sorted(row for group in groups for row in group) == list(range(8))
    for group in groups:
        assert sizes.cost(group, LENGTHS) <= 48 or len(group) == 1
    fewer = -(-sum(LENGTHS.packed[:7]) // 48) + 1
    assert not packed or len(groups) == fewer, "the seven shorter pairs as tight as they go, the longest one alone"


def test_ranks_have_equally_many_groups_under_a_budget() -> None:
    cuts = Sizes(4, 60, True).cut([[0, 2, 4, 6], [1, 3, 5, 7]], LENGTHS)
    assert [len(groups) for groups in cuts] == [3, 3]
    assert [sorted(row for group in groups for row in group) for groups in cuts] == [[0, 2, 4, 6], [1, 3, 5, 7]]


def test_without_a_budget_pairs_stay_in_order() -> None:
    assert Sizes(2).cut([[5, 1, 3]], LENGTHS) == [[[5, 1], [3]]]


def test_a_batch_of_tokens_moves_with_its_pack() -> None:
    batch: TokenBatch = batch_of(ROWS).to("meta")
    assert batch.pack is not None
    assert batch.pack.input_ids.device.type == batch.input_ids.device.type == "meta"
    assert batch.tokens == batch_of(ROWS).tokens == replace(batch_of(ROWS), pack=None).tokens
