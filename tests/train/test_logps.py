"""From a tokenised batch to log-probs: the same numbers however the batch is laid out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from alignzoo.data.collate import TokenBatch
from alignzoo.logprobs.logps import padded_pair_logps
from alignzoo.testing.tiny import CONFIGS, batch_of, pair_rows, tiny_model

ROWS = pair_rows(4, seed=3)
each_family = pytest.mark.parametrize("family", CONFIGS)


@torch.no_grad()
def one_by_one(model: Any, rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """Each response alone, unpadded, with a plain log-softmax."""
    sums: dict[str, list[torch.Tensor]] = {"chosen": [], "rejected": []}
    for row in rows:
        for side, values in sums.items():
            ids = torch.tensor([[*row["prompt_ids"], *row[f"{side}_ids"]]])
            logps = model(input_ids=ids, use_cache=False).logits[0, :-1].log_softmax(-1)
            logps = logps.gather(-1, ids[0, 1:, None])[:, 0]
            values.append(logps[len(row["prompt_ids"]) - 1 :].sum())
    return {side: torch.stack(values) for side, values in sums.items()}


def left_padded(batch: TokenBatch) -> TokenBatch:
    """The same rows with their padding in front."""
    shift = batch.input_ids.shape[1] - batch.attention_mask.sum(-1)
    index = (torch.arange(batch.input_ids.shape[1]) - shift[:, None]) % batch.input_ids.shape[1]
    fields = ("input_ids", "attention_mask", "response_mask")
    return replace(batch, **{name: getattr(batch, name).gather(1, index) for name in fields})


@each_family
def test_padded_equals_one_sequence_at_a_time(family: str) -> None:
    model = tiny_model(family)
    pairs, alone = padded_pair_logps(model, batch_of(ROWS)), one_by_one(model, ROWS)
    torch.testing.assert_close(pairs.chosen_logps, alone["chosen"], rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(pairs.rejected_logps, alone["rejected"], rtol=1e-6, atol=1e-6)


@each_family
def test_padding_side_and_batch_size_do_not_matter(family: str) -> None:
    model = tiny_model(family, dtype=torch.float32)
    with torch.no_grad():
        together = padded_pair_logps(model, batch_of(ROWS))
        left = padded_pair_logps(model, left_padded(batch_of(ROWS)))
        single = [padded_pair_logps(model, batch_of([row])).chosen_logps for row in ROWS]
    torch.testing.assert_close(left.chosen_logps, together.chosen_logps, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(left.rejected_logps, together.rejected_logps, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(torch.cat(single), together.chosen_logps, rtol=1e-4, atol=1e-5)


def test_lengths_count_response_tokens_with_eos_also_when_pad_is_eos() -> None:
    rows = [{**row, "chosen_ids": [*row["chosen_ids"][:-1], 0]} for row in ROWS]  # 0 is the pad id of the batch
    pairs = padded_pair_logps(tiny_model(), batch_of(rows))
    assert pairs.chosen_lengths.tolist() == [len(row["chosen_ids"]) for row in rows]
    assert pairs.rejected_lengths.tolist() == [len(row["rejected_ids"]) for row in rows]


def test_token_log_probs_add_up_to_the_sums() -> None:
    pairs = padded_pair_logps(tiny_model(), batch_of(ROWS), tokens=True)
    for side in ("chosen", "rejected"):
        tokens, mask = getattr(pairs, f"{side}_token_logps"), getattr(pairs, f"{side}_token_mask")
        torch.testing.assert_close(tokens.sum(-1), getattr(pairs, f"{side}_logps"))
        assert torch.equal(mask.sum(-1), getattr(pairs, f"{side}_lengths"))
        assert torch.equal(mask, mask.sort(-1, descending=True).values), "real tokens come first"
        assert not tokens[mask == 0].any()


def test_numbers_are_fp32_whatever_the_compute_dtype() -> None:
    pairs = padded_pair_logps(tiny_model(dtype=torch.bfloat16), batch_of(ROWS))
    assert all(value.dtype == torch.float32 for value in pairs.present().values())


def test_a_response_without_tokens_raises() -> None:
    batch = batch_of(ROWS)
    empty = replace(batch, response_mask=batch.response_mask.index_fill(0, torch.tensor([5]), False))
    with pytest.raises(ValueError, match="pair 1: the rejected response has no token"):
        padded_pair_logps(tiny_model(), empty)


def test_the_gradient_reaches_only_what_predicts_the_responses() -> None:
    model = tiny_model()
    embedding = model.get_input_embeddings()
    padded_pair_logps(model, batch_of(ROWS)).chosen_logps.sum().backward()
    assert embedding.weight.grad is not None
    assert torch.isfinite(embedding.weight.grad).all()
