"""Batched responses: the same as one at a time, whatever the batch."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from tiny_decoders import CONFIGS, EOS, TURN, alone, build

from alignzoo.errors import DataError, UsageError
from alignzoo.generate.batched import generate
from alignzoo.generate.decoding import Decoding
from alignzoo.generate.loop import steps_alone

GREEDY = Decoding(max_new_tokens=16)
QUICK = ("llama", "gemma2-sliding", "mamba")
"""Enough for every change: all positions kept, the last few alone, and a state instead."""


def slow(architecture: str) -> Any:
    return pytest.param(architecture, marks=pytest.mark.slow)


NOT_ASCII = list(range(94, 256))


def responses(model: Any, tokenizer: Any, prompts: Any, decoding: Decoding = GREEDY, **settings: Any) -> dict:
    return dict(generate(model, tokenizer, prompts, decoding, **settings))


@pytest.mark.parametrize("architecture", [*QUICK, *(slow(name) for name in CONFIGS if name not in QUICK)])
def test_greedy_responses_are_those_of_the_models_own_generate_for_each_prompt_alone(
    architecture: str, tokenizer: Any, prompts: Any
) -> None:
    model = build(architecture)
    assert steps_alone(model) == (architecture not in ("phi3", "mamba"))
    expected = {i: alone(model, tokenizer, prompt, GREEDY) for i, prompt in enumerate(prompts)}
    assert len({response.text for response in expected.values()}) > 5
    for batch_size in (None, 3):
        assert responses(model, tokenizer, prompts, batch_size=batch_size) == expected


@pytest.mark.parametrize("architecture", [*QUICK[:2], slow("gpt2"), slow("qwen2-sliding")])
def test_a_beginning_that_all_prompts_share_changes_nothing(architecture: str, tokenizer: Any, prompts: Any) -> None:
    model = build(architecture)
    shared = [list(range(40, 60)) + prompt for prompt in prompts[:6]]
    shared.append(shared[0][:20])  # a prompt that is the shared beginning itself
    expected = {i: alone(model, tokenizer, prompt, GREEDY) for i, prompt in enumerate(shared)}
    assert responses(model, tokenizer, shared, batch_size=4) == expected


@pytest.mark.parametrize("prefix", [0, 12])
def test_beginnings_that_only_some_prompts_share_are_processed_once_and_change_nothing(
    prefix: int, llama: Any, tokenizer: Any, monkeypatch: Any
) -> None:
    from alignzoo.generate.slots import Slots

    texts = [[*range(prefix), *[first] * 10, last, last + 1] for last in range(90, 94) for first in (30, 40, 50)]
    expected = {i: alone(llama, tokenizer, prompt, GREEDY) for i, prompt in enumerate(texts)}
    processed, forward = [], Slots._forward

    def counted(slots: Slots, ids: torch.Tensor, *more: Any) -> torch.Tensor:
        processed.append(tuple(ids.shape))
        return forward(slots, ids, *more)

    monkeypatch.setattr(Slots, "_forward", counted)
    assert responses(llama, tokenizer, texts, batch_size=12) == expected
    assert (3, 10) in processed


def test_the_columns_that_save_most_are_shared() -> None:
    from alignzoo.generate.slots import shared_columns

    assert shared_columns([[1, 2, 3, 4], [1, 2, 3, 5], [1, 2, 3, 6]], 0) == 3
    assert shared_columns([[1, 2, 3, 4], [1, 2, 3, 4]], 0) == 3  # a token must be left to continue
    assert shared_columns([[1, 2, 3, 4], [5, 6, 7, 8]], 0) == shared_columns([[1, 2, 3]], 0) == 0
    assert shared_columns([[1, 2, 3, 4], [1, 2, 3, 5]], 3) == 3  # all have these: nothing more to save


def test_prompts_of_different_lengths_may_be_processed_together(
    llama: Any, tokenizer: Any, prompts: Any, monkeypatch: Any
) -> None:
    from alignzoo.generate import loop

    expected = responses(llama, tokenizer, prompts, batch_size=1)
    monkeypatch.setattr(loop, "padding_share", lambda device: 9.0)  # a GPU accepts more than a CPU
    assert responses(llama, tokenizer, prompts, batch_size=5) == expected
    shared = [list(range(40, 60)) + prompt for prompt in prompts]
    together = responses(llama, tokenizer, shared, batch_size=5)
    assert together == {i: alone(llama, tokenizer, prompt, GREEDY) for i, prompt in enumerate(shared)}


def test_a_response_ends_with_any_end_token_of_the_generation_config(llama: Any, tokenizer: Any, prompts: Any) -> None:
    model = copy.deepcopy(llama)
    plain = responses(model, tokenizer, prompts)
    assert {(response.tokens, response.ended) for response in plain.values()} == {(16, False)}
    ends = [EOS, *range(0, 256, 16)]
    model.generation_config.eos_token_id = ends
    stopped = responses(model, tokenizer, prompts, batch_size=4)
    assert stopped == {i: alone(model, tokenizer, p, GREEDY, eos_token_id=ends) for i, p in enumerate(prompts)}
    assert {response.ended for response in stopped.values()} == {True, False}


def test_a_response_ends_before_the_first_of_the_stop_texts(llama: Any, tokenizer: Any, prompts: Any) -> None:
    model = copy.deepcopy(llama)
    model.generation_config.suppress_tokens = NOT_ASCII
    plain = responses(model, tokenizer, prompts)
    until = (plain[0].text[3:5], plain[1].text[6:7], "")
    stopped = responses(model, tokenizer, prompts, Decoding(16, until=until), batch_size=4)
    for index, response in stopped.items():
        text = plain[index].text
        for stop in until[:2]:
            text = text.split(stop)[0]
        assert response.text == text
        assert response.ended == (plain[index].ended or text != plain[index].text)
    assert stopped[0].tokens == len(stopped[0].text) + 2 < plain[0].tokens


def test_a_stop_text_may_be_a_special_token(llama: Any, tokenizer: Any, prompts: Any) -> None:
    model = copy.deepcopy(llama)
    model.generation_config.suppress_tokens = [i for i in range(259) if i not in (65, TURN)]
    stopped = responses(model, tokenizer, prompts, Decoding(16, until=("<turn>",)))
    assert all(set(r.text) <= {tokenizer.decode([65])} for r in stopped.values())
    assert any(response.ended for response in stopped.values())


@pytest.mark.parametrize(
    "changes",
    [
        {"repetition_penalty": 1.3},
        {"no_repeat_ngram_size": 1},
        {"suppress_tokens": list(range(0, 256, 2))},
        {"min_new_tokens": 9, "eos_token_id": list(range(120, 257))},
        {"temperature": 0.3, "top_p": 0.5, "top_k": 3, "do_sample": True},
    ],
)
def test_the_generation_config_counts_as_in_a_greedy_generate(
    changes: dict[str, Any], llama: Any, tokenizer: Any, prompts: Any
) -> None:
    model = copy.deepcopy(llama)
    for name, value in changes.items():
        setattr(model.generation_config, name, value)
    ends = {name: value for name, value in changes.items() if name == "eos_token_id"}
    expected = {i: alone(model, tokenizer, prompt, GREEDY, **ends) for i, prompt in enumerate(prompts)}
    assert responses(model, tokenizer, prompts, batch_size=4) == expected


def test_sampled_responses_depend_on_the_seed_and_the_index_alone(llama: Any, tokenizer: Any, prompts: Any) -> None:
    sampling = Decoding(12, temperature=0.9, top_p=0.95, top_k=50, seed=5)
    state = torch.get_rng_state()
    drawn = responses(llama, tokenizer, prompts, sampling)
    assert torch.equal(torch.get_rng_state(), state)
    assert drawn == responses(llama, tokenizer, prompts, sampling, batch_size=3)
    rest = [9, 1, 7]
    assert responses(llama, tokenizer, prompts, sampling, only=rest) == {i: drawn[i] for i in rest}
    assert drawn != responses(llama, tokenizer, prompts, Decoding(12, temperature=0.9, seed=6))
    twice = responses(llama, tokenizer, [prompts[0], prompts[0]], sampling)
    assert twice[0] == drawn[0] != twice[1]


def test_a_model_left_to_its_own_generate_samples_likewise(tokenizer: Any, prompts: Any) -> None:
    model, sampling = build("phi3"), Decoding(6, temperature=0.9, seed=5)
    drawn = responses(model, tokenizer, prompts[:3], sampling)
    assert drawn == responses(model, tokenizer, prompts[:3], sampling, batch_size=1)
    assert responses(model, tokenizer, prompts, sampling, only=[2]) == {2: drawn[2]}


def test_tokens_are_drawn_from_the_distribution_of_transformers_warpers() -> None:
    from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

    from alignzoo.generate.choose import distribution

    logits = torch.randn(4, 300, generator=torch.Generator().manual_seed(0)) * 3
    for top_k, top_p in ((0, 1.0), (20, 1.0), (0, 0.7), (20, 0.7), (300, 0.99)):
        expected = TemperatureLogitsWarper(0.8)(None, logits)
        if top_k:
            expected = TopKLogitsWarper(top_k)(None, expected)
        expected = TopPLogitsWarper(top_p)(None, expected).softmax(dim=-1)
        torch.testing.assert_close(distribution(logits, Decoding(1, 0.8, top_p, top_k)), expected)


def test_sampling_frequencies_are_the_probabilities(llama: Any, tokenizer: Any, prompts: Any) -> None:
    from scipy.stats import chisquare

    model = copy.deepcopy(llama)
    model.generation_config.suppress_tokens = NOT_ASCII
    with torch.no_grad():
        logits = model(torch.tensor([prompts[0]])).logits[0, -1]
    logits[NOT_ASCII] = -torch.inf
    probs = (logits / 2.0).softmax(dim=-1)
    drawn = responses(model, tokenizer, [prompts[0]] * 400, Decoding(1, temperature=2.0), batch_size=100)
    most = int(probs.argmax())
    hits = sum(response.text == tokenizer.decode([most]) for response in drawn.values())
    share = float(probs[most])
    assert chisquare([hits, 400 - hits], [400 * share, 400 * (1 - share)]).pvalue > 1e-3


def test_a_long_prompt_loses_its_beginning(llama: Any, tokenizer: Any) -> None:
    prompt = [i % 256 for i in range(7, 207)]
    assert responses(llama, tokenizer, [prompt]) == {0: alone(llama, tokenizer, prompt[-(128 - 16) :], GREEDY)}
    with pytest.raises(UsageError, match="128 positions"):
        responses(llama, tokenizer, [prompt], Decoding(128))
    with pytest.raises(DataError, match="prompt 1 has no tokens"):
        generate(llama, tokenizer, [[3], []], GREEDY)


def test_the_model_is_as_before_and_gradients_stay_on_for_the_consumer(
    llama: Any, tokenizer: Any, prompts: Any
) -> None:
    model = copy.deepcopy(llama).train()
    model.model.layers[0].eval()
    flags = [module.training for module in model.modules()]
    side = tokenizer.padding_side
    made = generate(model, tokenizer, prompts, GREEDY)
    next(made)
    assert torch.is_grad_enabled()
    made.close()
    assert [module.training for module in model.modules()] == flags
    assert tokenizer.padding_side == side
    model(torch.tensor([prompts[0]])).logits.sum().backward()


def test_adapters_count(llama: Any, tokenizer: Any, prompts: Any) -> None:
    from peft import LoraConfig, PromptTuningConfig, get_peft_model

    lora = get_peft_model(copy.deepcopy(llama), LoraConfig(r=4, target_modules=["q_proj"], init_lora_weights=False))
    lora.eval()
    expected = {i: alone(lora, tokenizer, prompt, GREEDY) for i, prompt in enumerate(prompts)}
    assert responses(lora, tokenizer, prompts, batch_size=4) == expected
    assert expected != responses(llama, tokenizer, prompts)
    tuned = get_peft_model(copy.deepcopy(llama), PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4))
    assert not steps_alone(tuned)
    assert len(responses(tuned, tokenizer, prompts[:2], Decoding(4))) == 2


def test_out_of_memory_halves_the_batch_and_goes_on(llama: Any, tokenizer: Any, prompts: Any, monkeypatch: Any) -> None:
    from alignzoo.generate.slots import Slots

    expected, steps = responses(llama, tokenizer, prompts), Slots.step
    sizes = []

    def small(slots: Slots) -> Any:
        sizes.append(len(slots.rows))
        if len(slots.rows) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return steps(slots)

    monkeypatch.setattr(Slots, "step", small)  # a CPU has no such error
    assert responses(llama, tokenizer, prompts, batch_size=8) == expected
    assert max(sizes) == 8
    assert sizes[-1] <= 3
    monkeypatch.setattr(Slots, "step", lambda slots: (_ for _ in ()).throw(torch.OutOfMemoryError("CUDA")))
    with pytest.raises(torch.OutOfMemoryError):
        responses(llama, tokenizer, prompts)


def test_nothing_to_answer(llama: Any, tokenizer: Any, prompts: Any) -> None:
    assert responses(llama, tokenizer, []) == responses(llama, tokenizer, prompts, only=[]) == {}


def test_decoding_says_what_is_out_of_range() -> None:
    for settings in ({"max_new_tokens": 0}, {"temperature": -1}, {"top_p": 0}, {"top_k": -1}):
        with pytest.raises(UsageError, match=next(iter(settings))):
            Decoding(**settings)
