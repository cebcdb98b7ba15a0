"""A streamed response: pieces that together are the batch's text."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from tiny_decoders import build

from alignzoo.errors import DataError
from alignzoo.generate.batched import generate
from alignzoo.generate.decoding import Decoding
from alignzoo.generate.stream import stream


@pytest.mark.parametrize("decoding", [Decoding(24), Decoding(24, temperature=0.8, seed=4)])
def test_the_pieces_are_the_batch_text(decoding: Decoding, llama: Any, tokenizer: Any, prompts: Any) -> None:
    for prompt in prompts[:5]:
        [(_, response)] = generate(llama, tokenizer, [prompt], decoding)
        pieces = list(stream(llama, tokenizer, prompt, decoding))
        assert "".join(pieces) == response.text
        assert all(pieces)


@pytest.mark.parametrize("name", ["llama", "mamba"])
def test_a_complete_stream_knows_how_it_ended(name: str, tokenizer: Any, prompts: Any) -> None:
    model = build(name)
    [(_, response)] = generate(model, tokenizer, [prompts[0]], Decoding(6))
    pieces = stream(model, tokenizer, prompts[0], Decoding(6))
    assert pieces.ended is None
    for _ in pieces:
        pass
    assert (pieces.tokens, pieces.ended) == (response.tokens, response.ended)


def test_a_character_of_several_tokens_comes_whole(llama: Any, tokenizer: Any) -> None:
    text = "né 日本 🙂!"
    ids = tokenizer.encode(text)
    pieces = list(stream(_writing(llama, ids), tokenizer, [3, 4, 5], Decoding(len(ids))))
    assert pieces == list(text)


def test_a_stop_text_is_held_back(llama: Any, tokenizer: Any) -> None:
    model = _writing(llama, tokenizer.encode("one\ntwo\n\nthree"))
    assert list(stream(model, tokenizer, [3, 4, 5], Decoding(14, until=("\n\n",)))) == [
        "o",
        "n",
        "e",
        "\nt",
        "w",
        "o",
    ]


def test_closing_the_stream_stops_it(llama: Any, tokenizer: Any, prompts: Any) -> None:
    model = copy.deepcopy(llama).train()
    pieces = stream(model, tokenizer, prompts[0], Decoding(100))
    next(pieces)
    assert torch.is_grad_enabled()
    pieces.close()
    assert model.training
    assert all(module.training for module in model.modules())


def test_a_model_that_only_generates_by_itself_comes_in_one_piece(tokenizer: Any, prompts: Any) -> None:
    model = build("mamba")
    [(_, response)] = generate(model, tokenizer, [prompts[0]], Decoding(6))
    assert list(stream(model, tokenizer, prompts[0], Decoding(6))) == [response.text]


def test_an_empty_prompt_is_refused(llama: Any, tokenizer: Any) -> None:
    with pytest.raises(DataError, match="no tokens"):
        stream(llama, tokenizer, [], Decoding(4))


def _writing(model: Any, ids: list[int]) -> Any:
    """A model that writes ``ids`` after a prompt of three tokens."""
    from transformers import LogitsProcessor, LogitsProcessorList

    class Writes(LogitsProcessor):
        def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
            scores[:, ids[input_ids.shape[1] - 3]] = 1e9
            return scores

    model = copy.deepcopy(model)
    model._get_logits_processor = lambda *args, **kwargs: LogitsProcessorList([Writes()])
    return model
