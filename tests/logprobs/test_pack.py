"""The layout of a pack and its masks: each prompt once, no padding, no response that sees another one."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from families import OTHERS, ROWS, mixed_batch

from alignzoo.data.collate import TokenBatch
from alignzoo.data.pack import Segment, pack_of
from alignzoo.logprobs import attention
from alignzoo.logprobs.forward import choose_forward
from alignzoo.logprobs.logps import padded_logps
from alignzoo.testing.tiny import batch_of, pair_rows, random_rows, tiny_model

REPLIES = [[*row["response_ids"], *others] for row, others in zip(ROWS, OTHERS, strict=True)]
"""All responses of each row of the mixed batch."""


def test_a_pack_of_a_batch_that_came_without_one_is_the_same() -> None:
    batch = mixed_batch()
    assert batch.pack is not None
    derived = pack_of(replace(batch, pack=None))
    assert derived.segments == batch.pack.segments
    for name in ("input_ids", "position_ids", "predicting", "targets", "rows", "columns"):
        assert torch.equal(getattr(derived, name), getattr(batch.pack, name)), name


def test_a_pack_holds_each_prompt_once_and_no_padding() -> None:
    made = pack_of(mixed_batch())
    parts = [[row["prompt_ids"], *replies] for row, replies in zip(ROWS, REPLIES, strict=True)]
    assert made.input_ids[0].tolist() == [token for row in parts for part in row for token in part]
    assert made.targets.tolist() == [token for replies in REPLIES for reply in replies for token in reply]
    flat = [reply for replies in REPLIES for reply in replies]
    assert made.rows.tolist() == [row for row, reply in enumerate(flat) for _ in reply]
    assert made.columns.tolist() == [place for reply in flat for place in range(len(reply))]
    assert made.longest_response == max(map(len, flat))


def test_every_response_continues_its_prompt() -> None:
    made = pack_of(mixed_batch())
    for segment, row in zip(made.segments, ROWS, strict=True):
        count = len(row["prompt_ids"])
        assert segment.prompt == count
        assert made.position_ids[0, segment.prompt_place()].tolist() == list(range(count))
        for place in segment.places():
            assert made.position_ids[0, place].tolist() == list(range(count, count + place.stop - place.start))
    before = made.position_ids[0, made.predicting]
    prompts = torch.tensor([segment.prompt for segment in made.segments for _ in segment.responses])
    assert torch.equal(before, prompts[made.rows] + made.columns - 1), "a token is predicted by the one before it"


def test_places_of_a_segment_follow_each_other() -> None:
    segment = Segment(10, 3, (2, 4, 1))
    assert segment.prompt_place() == slice(10, 13)
    assert segment.places() == (slice(13, 15), slice(15, 19), slice(19, 20))
    assert (segment.end, segment.longest) == (20, 7)


@pytest.mark.parametrize("window", [None, 4])
def test_the_masks_of_segments_flex_attention_and_the_whole_row_agree(window: int | None) -> None:
    made = pack_of(mixed_batch())
    whole = made.dense_mask(window)
    others = whole.clone()
    for i, segment in enumerate(made.segments):
        prompt = segment.prompt_place()
        for j, response in enumerate(segment.places()):
            if j == 0:
                first = slice(prompt.start, response.stop)
                size, mask = first.stop - first.start, made.first_mask(i, window)
                assert torch.equal(torch.ones(size, size).tril().bool() if mask is None else mask, whole[first, first])
                others[first, first] = False
            else:
                seen = torch.cat([whole[response, prompt], whole[response, response]], 1)
                assert torch.equal(made.further_mask(i, j, window), seen)
                others[response, prompt] = others[response, response] = False
    assert not others.any(), "no response sees another one, no segment another one"
    at = torch.arange(whole.shape[0])
    allowed = made.block_mask(window).mask_mod(torch.zeros(()), torch.zeros(()), at[:, None], at[None, :])
    assert torch.equal(allowed, whole)


def test_a_window_reaches_back_by_position_not_by_place_in_the_row() -> None:
    row = {"row_id": 0, "prompt_ids": [5] * 4, "response_ids": [[6] * 9, [7] * 2, [8] * 3]}
    made = pack_of(batch_of([row], shape="ranked"))
    whole, last = made.dense_mask(3), made.segments[0].places()[2]
    seen = [whole[place].nonzero()[:, 0].tolist() for place in range(last.start, last.stop)]
    assert seen == [[2, 3, 15], [3, 15, 16], [15, 16, 17]]


@pytest.mark.parametrize("window", [None, 4])
@pytest.mark.parametrize("batch", [mixed_batch(), batch_of(pair_rows(5, seed=3))], ids=["mixed", "pairs"])
def test_flex_attention_gives_the_same_numbers(batch: TokenBatch, window: int | None) -> None:
    """Uncompiled, on a CPU: the same call that a GPU compiles."""
    made = pack_of(batch)
    size = made.input_ids.shape[1]
    draw = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(1, heads, size, 8, generator=draw) for heads in (4, 2, 2))
    expected = attention._by_segments(query, key, value, made, window, 0.3, 0.0)
    torch.testing.assert_close(attention._flex(query, key, value, made, window, 0.3), expected)


def test_flex_attention_reaches_every_block_that_holds_something_to_see() -> None:
    from torch.nn.attention.flex_attention import create_block_mask

    made = pack_of(batch_of(random_rows([2, 1, 4] * 12, seed=1), shape="ranked"))
    size = made.input_ids.shape[1]
    assert size > 3 * 128
    mask = made.block_mask(None)
    reached = mask.to_dense()[0, 0].bool()
    needed = create_block_mask(mask.mask_mod, None, None, size, size, device="cpu").to_dense()[0, 0].bool()
    assert torch.equal(reached & needed, needed)
    assert not reached.triu(1).any()
    assert not reached.tril(-2).any(), "the rows are short: a block sees itself and the one before"


@pytest.mark.gpu
def test_on_a_gpu_flex_attention_is_taken_and_gives_the_padded_numbers() -> None:
    model, batch = tiny_model(dtype=torch.float32).cuda(), mixed_batch().to("cuda")
    expected = padded_logps(model, batch)
    choice = choose_forward(model, batch)
    assert choice.packed, choice.why
    torch.testing.assert_close(choice.forward(model, batch).logps, expected.logps, rtol=1e-4, atol=1e-4)


def test_a_batch_of_tokens_moves_with_its_pack() -> None:
    batch = mixed_batch().to("meta")
    assert batch.pack is not None
    assert batch.pack.input_ids.device.type == batch.input_ids.device.type == "meta"
    assert batch.tokens == mixed_batch().tokens == replace(mixed_batch(), pack=None).tokens


def test_in_16_bits_attention_on_a_cpu_is_as_exact_as_its_output() -> None:
    """Against float64 over the same rounded inputs: nothing but the output is rounded."""
    made = pack_of(mixed_batch())
    size = made.input_ids.shape[1]
    draw = torch.Generator().manual_seed(0)
    given = [torch.randn(1, heads, size, 8, generator=draw).bfloat16() for heads in (4, 2, 2)]
    expected = attention._by_segments(*(part.double() for part in given), made, None, None, 0.0)
    with torch.autocast("cpu", torch.bfloat16):
        found, _ = attention.packed_attention(torch.nn.Identity(), *given, None, pack=made)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.double(), expected, rtol=2**-8, atol=1e-6)


def test_gradients_of_segments_are_those_of_one_mask_over_the_row() -> None:
    made = pack_of(mixed_batch())
    size = made.input_ids.shape[1]
    draw = torch.Generator().manual_seed(0)
    given = [torch.randn(1, 2, size, 8, generator=draw, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    weights = torch.randn(1, size, 2, 8, generator=draw, dtype=torch.float64)
    found = attention._by_segments(*given, made, None, None, 0.0)
    whole = torch.nn.functional.scaled_dot_product_attention(*given, attn_mask=made.dense_mask()[None, None])
    expected = torch.autograd.grad((whole.transpose(1, 2) * weights).sum(), given)
    torch.testing.assert_close(torch.autograd.grad((found * weights).sum(), given), expected)
