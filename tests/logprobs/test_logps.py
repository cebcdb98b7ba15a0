"""From a tokenised batch to log-probs: the same numbers however the batch is laid out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from families import KINDS, exact_model, gradients_of, mixed_batch, rows_of

from alignzoo.data.collate import TokenBatch
from alignzoo.logprobs.forward import use_packing
from alignzoo.logprobs.logps import packed_logps, padded_logps
from alignzoo.testing.tiny import CONFIGS, batch_of, pair_rows, tiny_model

ROWS = pair_rows(4, seed=3)
each_family = pytest.mark.parametrize("family", CONFIGS)


def one_by_one(model: Any, rows: list[dict[str, Any]], others: Any = None) -> torch.Tensor:
    """``(R,)``: each response alone behind its prompt, unpadded, with a plain log-softmax."""
    sums = []
    for row, mismatched in zip(rows, others or [[]] * len(rows), strict=True):
        for reply in (*row["response_ids"], *mismatched):
            ids = torch.tensor([[*row["prompt_ids"], *reply]])
            logps = model(input_ids=ids, use_cache=False).logits[0, :-1].log_softmax(-1)
            sums.append(logps.gather(-1, ids[0, 1:, None])[len(row["prompt_ids"]) - 1 :].sum())
    return torch.stack(sums)


def left_padded(batch: TokenBatch) -> TokenBatch:
    """The same rows with their padding in front."""
    shift = batch.input_ids.shape[1] - batch.attention_mask.sum(-1)
    index = (torch.arange(batch.input_ids.shape[1]) - shift[:, None]) % batch.input_ids.shape[1]
    fields = ("input_ids", "attention_mask", "response_mask")
    return replace(batch, pack=None, **{name: getattr(batch, name).gather(1, index) for name in fields})


@torch.no_grad()
@each_family
def test_padded_equals_one_sequence_at_a_time(family: str) -> None:
    model = tiny_model(family)
    found = padded_logps(model, batch_of(ROWS)).logps
    torch.testing.assert_close(found, one_by_one(model, ROWS), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kl", [False, True])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", ["llama", "gpt2", "mistral-window"])
def test_packed_padded_and_one_at_a_time_agree_in_values_and_gradients(family: str, kind: str, kl: bool) -> None:
    rows, others, batch = rows_of(kind, kl=kl)
    model = exact_model(family)
    use_packing(model)
    weights = torch.linspace(-1, 2, batch.responses, dtype=torch.float64)
    expected = one_by_one(model, rows, others)
    gradient = gradients_of((expected * weights).sum(), model)
    for forward in (packed_logps, padded_logps):
        found = forward(model, batch).logps
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
        for name, value in gradients_of((found * weights).sum(), model).items():
            torch.testing.assert_close(value, gradient[name], rtol=1e-10, atol=1e-10, msg=name)


def test_responses_carry_what_the_batch_says_of_them() -> None:
    batch = mixed_batch()
    found = padded_logps(tiny_model(), batch)
    assert found.prompt.tolist() == [0] * 4 + [1] * 2 + [2] * 6 + [3] * 4
    assert found.roles is not None
    assert found.roles.tolist() == [0, 0, 1, 1, 0, 1, 0, 0, 0, 1, 1, 1, 0, 0, 1, 1]
    assert found.ranks is not None
    assert found.ranks.tolist() == [0, 1, -1, -1, 0, -1, 0, 1, 2, -1, -1, -1, 0, 1, -1, -1]
    assert found.labels is not None
    assert not found.labels.any()
    assert not found.paired
    places, mask = found.lists()
    assert places[mask].tolist() == [0, 1, 4, 6, 7, 8, 12, 13]
    pairs = padded_logps(tiny_model(), batch_of(ROWS))
    assert pairs.paired
    assert pairs.roles is None
    assert pairs.labels is not None
    assert pairs.labels.tolist() == [1, -1] * len(ROWS)
    assert pairs.pairs().chosen_logps.tolist() == pairs.logps[::2].tolist()


@torch.no_grad()
@each_family
def test_padding_side_and_batch_size_do_not_matter(family: str) -> None:
    model = tiny_model(family, dtype=torch.float32)
    together = padded_logps(model, batch_of(ROWS)).logps
    left = padded_logps(model, left_padded(batch_of(ROWS))).logps
    single = torch.cat([padded_logps(model, batch_of([row])).logps for row in ROWS])
    torch.testing.assert_close(left, together, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(single, together, rtol=1e-4, atol=1e-5)


def test_lengths_count_response_tokens_with_eos_also_when_pad_is_eos() -> None:
    rows = [{**row, "response_ids": [[*row["response_ids"][0][:-1], 0], row["response_ids"][1]]} for row in ROWS]
    found = padded_logps(tiny_model(), batch_of(rows))  # 0 is the pad id of the batch
    assert found.lengths.tolist() == [len(reply) for row in rows for reply in row["response_ids"]]


@pytest.mark.parametrize("packed", [False, True])
def test_token_log_probs_add_up_to_the_sums(packed: bool) -> None:
    model = tiny_model()
    use_packing(model)
    found = (packed_logps if packed else padded_logps)(model, mixed_batch(), tokens=True)
    assert found.token_logps is not None
    assert found.token_mask is not None
    torch.testing.assert_close(found.token_logps.sum(-1), found.logps)
    assert torch.equal(found.token_mask.sum(-1), found.lengths)
    assert torch.equal(found.token_mask, found.token_mask.sort(-1, descending=True).values), "real tokens come first"
    assert not found.token_logps[found.token_mask == 0].any()


def test_numbers_are_fp32_whatever_the_compute_dtype() -> None:
    found = padded_logps(tiny_model(dtype=torch.bfloat16), batch_of(ROWS), tokens=True).present()
    assert {name for name, value in found.items() if value.dtype != torch.float32} == {"prompt", "labels", "ranks"}


def test_a_response_without_tokens_raises() -> None:
    batch = mixed_batch()
    empty = replace(batch, pack=None, response_mask=batch.response_mask.index_fill(0, torch.tensor([5]), False))
    with pytest.raises(ValueError, match="row 1: response 2 of 2 has no token"):
        padded_logps(tiny_model(), empty)


def test_the_gradient_reaches_only_what_predicts_the_responses() -> None:
    model = tiny_model()
    embedding = model.get_input_embeddings()
    padded_logps(model, batch_of(ROWS)).logps[::2].sum().backward()
    assert embedding.weight.grad is not None
    assert torch.isfinite(embedding.weight.grad).all()
