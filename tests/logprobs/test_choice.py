"""How a run chooses its forward: what is tried, on which rows, and why a model is not packed."""

from __future__ import annotations

from dataclasses import replace
from functools import wraps
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from datasets import Dataset
from families import ROWS, UNPACKED, mixed_batch, model_of

from alignzoo.data.collate import TokenBatch
from alignzoo.data.lengths import Lengths, lengths_of
from alignzoo.data.pack import Pack, pack_of
from alignzoo.logprobs import attention
from alignzoo.logprobs.forward import _chosen, choose_forward, why_not_packed, worth_trying
from alignzoo.logprobs.logps import padded_logps
from alignzoo.logprobs.rope import goes_by_batch
from alignzoo.logprobs.trial import micro_batch
from alignzoo.logprobs.ways import Trial, Tried
from alignzoo.plan.settings import Settings
from alignzoo.testing.tiny import SMALL, VOCAB, batch_of, pair_rows, random_rows, tiny_model


@pytest.mark.parametrize(
    ("family", "why"),
    [
        ("bloom", "ALiBi"),
        ("mpt", "ALiBi"),
        ("falcon-alibi", "ALiBi"),
        ("mamba", "recurrent"),
        ("llama4", "packed log-probs differ"),
    ],
)
def test_what_cannot_be_packed_says_why_and_is_computed_padded(family: str, why: str) -> None:
    model, batch = model_of(family), mixed_batch()
    expected, implementation = padded_logps(model, batch), model.config._attn_implementation
    choice = choose_forward(model, batch)
    assert not choice.packed
    assert choice.why.startswith("packing is off: ")
    assert why in choice.why
    assert "\n" not in choice.why
    assert torch.equal(choice.forward(model, batch).logps, expected.logps)
    assert model.config._attn_implementation == implementation


def test_packing_that_is_not_wanted_leaves_the_model_alone() -> None:
    model = tiny_model()
    choice = choose_forward(model, mixed_batch(), packing=False)
    assert not choice.packed
    assert model.config._attn_implementation == "sdpa"


def of_each_kind() -> dict[str, TokenBatch]:
    """Rows to try packing on: of mixed kinds, a single pair, two pairs, two rows of one response, one with a mismatched
    one each."""
    pairs, singles = pair_rows(2, seed=4), random_rows([1, 1], seed=6)
    return {
        "mixed": mixed_batch(),
        "pair": batch_of(pairs[:1]),
        "pairs": batch_of(pairs),
        "singles": batch_of(singles, shape="ranked"),
        "mismatched": batch_of(singles, shape="ranked", kl=[row["response_ids"] for row in singles[::-1]]),
    }


def test_a_trial_computes_few_tokens() -> None:
    """Of each row, in rows of their own, the responses but the first; all in one pack."""
    model, rows = tiny_model(), pair_rows(2, seed=4)
    batch = batch_of([*rows, *random_rows([1], seed=6)], shape="ranked")
    seen: list[int] = []
    model.get_input_embeddings().register_forward_hook(lambda _m, _i, output: seen.append(output.shape[:2].numel()))
    padded_logps(model, batch)  # the head has been tried
    seen.clear()
    assert choose_forward(model, batch).packed
    lengths = [(len(row["prompt_ids"]), *map(len, row["response_ids"])) for row in rows]
    last = (batch.prompt_lengths[2] + batch.lengths[4]).item()
    packed = batch.pack.input_ids.numel()  # type: ignore[union-attr]
    assert seen[1:] == [*(prompt + second for prompt, _, second in lengths), last, packed]
    assert seen[0] <= 2 * (8 + 8)


@pytest.mark.parametrize("kind", of_each_kind())
@pytest.mark.parametrize("wrong", ["positions", "sight"])
def test_the_check_sees_what_is_wrong(wrong: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Positions that do not restart, or a response that sees another one, are refused."""
    if wrong == "sight":
        monkeypatch.setattr(attention, "_by_segments", causal)
        monkeypatch.setattr(
            Pack, "dense_mask", lambda self, window=None: torch.ones(*[self.input_ids.shape[1]] * 2).tril().bool()
        )
    relative = wrong == "sight" or kind != "singles"  # rotary positions may as well begin elsewhere
    model, batch = model_of("llama" if relative else "gpt2"), of_each_kind()[kind]
    if wrong == "positions":
        made = pack_of(batch)
        batch = replace(batch, pack=replace(made, position_ids=torch.arange(made.input_ids.shape[1])[None]))
    choice = choose_forward(model, batch)
    assert not choice.packed
    assert "packed log-probs differ" in choice.why


def causal(query: Any, key: Any, value: Any, pack: Any, window: Any, scaling: Any, dropout: Any) -> torch.Tensor:
    found = torch.nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True)
    return found.transpose(1, 2)


def test_alibi_is_known_by_what_the_model_says_or_does() -> None:
    """A setting that switches it off counts; so does a model of any name that builds the biases."""
    model = model_of("falcon-alibi")
    model.config.alibi = False
    assert why_not_packed(model) is None
    llama = tiny_model()
    assert why_not_packed(llama) is None
    kind = type(llama.model)
    llama.model.__class__ = type("Renamed", (kind,), {"make_alibi": lambda self: None})
    assert "ALiBi" in str(why_not_packed(llama))


@pytest.mark.parametrize(
    ("family", "change", "why"),
    [
        ("llama4", {"attention_chunk_size": 16, "attn_temperature_tuning": False}, "packed log-probs differ"),
        ("llama4", {"attn_temperature_tuning": True}, "attn_temperature_tuning"),
        ("gpt-neo", {}, "packed log-probs differ"),
    ],
)
def test_what_goes_wrong_with_long_pairs_only_is_tried_on_a_long_one(
    family: str, change: dict[str, Any], why: str
) -> None:
    short = pair_rows(4, seed=3)
    draw = torch.Generator().manual_seed(5)
    prompt, *replies = torch.randint(3, VOCAB, (3, 30), generator=draw).tolist()
    long = {"row_id": 9, "prompt_ids": prompt, "response_ids": replies}
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
    tried = [rows[i] for i in worth_trying(model, lengths_of(Dataset.from_list(rows)), range(4))]
    choice = choose_forward(model, batch_of(tried))
    assert not choice.packed
    assert why in choice.why


def test_a_plain_model_is_tried_on_two_rows_of_the_first_step() -> None:
    lengths = Lengths(np.array([10, 30, 20, 99]), np.array([8, 20, 15, 60]), np.array([2, 2, 2, 2]))
    assert worth_trying(tiny_model(), lengths, [0, 1, 2]) == [0, 1]


def test_a_row_with_more_responses_than_the_shortest_and_the_longest_is_tried_too() -> None:
    lengths = Lengths(np.array([10, 30, 40, 99]), np.array([8, 20, 15, 60]), np.array([1, 2, 4, 9]))
    assert worth_trying(tiny_model(), lengths, [0, 1, 2]) == [0, 1, 2]


@pytest.mark.parametrize(
    ("words", "rows"),
    [
        ({"micro_batch_size": 2}, [2, 0]),
        ({"tokens_per_micro_batch": 60}, [2, 0, 1]),
        ({"tokens_per_micro_batch": 5}, [2]),
    ],
)
def test_ways_are_timed_on_about_one_micro_batch(words: dict[str, int], rows: list[int]) -> None:
    lengths = Lengths(np.array([10, 30, 20, 99]), np.array([8, 20, 15, 60]), np.array([2, 2, 2, 2]))
    assert micro_batch([2, 0, 1, 3], lengths, Settings(**words)) == rows


def test_of_several_right_ways_the_fastest_on_the_slowest_rank_is_chosen() -> None:
    model = tiny_model()
    fast = Tried({"varlen": Trial(1e-2, 2.0), "flex": Trial(1e-6, 3.0), "segments": Trial(0.0, 8.0)})
    slow = Tried({"varlen": Trial(2e-2, 5.0), "flex": Trial(1e-6, 4.0), "segments": Trial(0.0, 8.0)})
    alone, together = _chosen(model, [fast], False), _chosen(model, [fast, slow], False)
    assert (alone.way, together.way) == ("varlen", "flex")
    assert alone.by_segment
    assert together.why == (
        "packing: each prompt once, no padding, with FlexAttention (max difference from padded log-probs: 1e-06; "
        "1.25× the time with variable-length FlashAttention, 2.00× the time one segment after another)"
    )
    without = _chosen(model, [fast, Tried({"segments": Trial(0.0, 8.0)})], False)
    assert without.way == "segments", "a way that is wrong on one rank is taken on none"


@pytest.mark.parametrize(
    ("other", "why"),
    [
        (Tried(why_padded=": it is recurrent"), "packing is off: it is recurrent"),
        (Tried({"masks": Trial(0.0)}), "packing is off: the ranks can pack in different ways only"),
    ],
)
def test_ranks_without_a_common_way_do_not_pack(other: Tried, why: str) -> None:
    model = tiny_model()
    choice = _chosen(model, [Tried({"segments": Trial(0.0)}), other], False)
    assert (choice.packed, choice.way, choice.why) == (False, "padded", why)
    assert model.config._attn_implementation == "sdpa"


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
    ids = torch.tensor([[*row["prompt_ids"], *row["response_ids"][0]]])
    with torch.no_grad():
        logps = model(input_ids=ids).logits[0, :-1].log_softmax(-1).gather(-1, ids[0, 1:, None])[:, 0]
    expected = logps[len(row["prompt_ids"]) - 1 :].sum()
    batch = mixed_batch()
    torch.testing.assert_close(padded_logps(model, batch).logps[0], expected, rtol=1e-5, atol=1e-5)
    choice = choose_forward(model, batch)
    assert choice.packed
    torch.testing.assert_close(choice.forward(model, batch).logps[0], expected, rtol=1e-5, atol=1e-5)


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
