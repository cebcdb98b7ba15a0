"""Rows packed, each prompt once: the padded path's numbers in every family, or a stated refusal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch
from families import ALL, NARROW, ROWS, exact_model, gradients_of, mixed_batch, model_of, same_gradients

from alignzoo.data.pack import pack
from alignzoo.logprobs.attention import packed_attention
from alignzoo.logprobs.forward import choose_forward, use_packing
from alignzoo.logprobs.logps import packed_logps, padded_logps
from alignzoo.testing.tiny import batch_of, tiny_model


@pytest.mark.parametrize("family", ALL)
def test_packed_equals_padded(family: str) -> None:
    model, batch = model_of(family), mixed_batch()
    padded = padded_logps(model, batch, tokens=True)
    choice = choose_forward(model, batch, tokens=True)
    assert choice.packed, choice.why
    packed = choice.forward(model, batch)
    assert packed.present().keys() == padded.present().keys()
    for name, value in packed.present().items():
        torch.testing.assert_close(value, getattr(padded, name), rtol=1e-5, atol=1e-5, msg=name)
    after = padded_logps(model, batch)  # the packed attention without a pack is the one that was there before
    assert torch.equal(after.logps, padded.logps)


@pytest.mark.parametrize("family", ALL)
def test_packed_gradients_equal_padded_ones(family: str) -> None:
    model, batch = model_of(family) if family in NARROW else exact_model(family), mixed_batch()
    cotangents = torch.linspace(-1, 2, batch.responses)
    expected = padded_logps(model, batch).logps
    found = choose_forward(model, batch).forward(model, batch).logps
    if family not in NARROW:
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    one, other = (gradients_of((logps * cotangents).sum(), model) for logps in (found, expected))
    same_gradients(one, other, 1e-5 if family in NARROW else 1e-10)


@pytest.mark.parametrize("way", ["segments", "flex", "masks"])
@pytest.mark.parametrize("kl", [False, True])
def test_a_response_does_not_depend_on_the_others_of_its_row(way: str, kl: bool) -> None:
    model = model_of("llama", dtype=torch.float64)
    if way != "masks":
        use_packing(model)
    changed = [[*row["response_ids"][:-1], [9] * len(row["response_ids"][-1])] for row in ROWS]
    rows = [{**row, "response_ids": replies} for row, replies in zip(ROWS, changed, strict=True)]
    others = [row["response_ids"] for row in ROWS] if kl else None
    with torch.no_grad():
        before, after = (
            packed_logps(model, batch_of(given, shape="ranked", kl=others), way=way).logps for given in (ROWS, rows)
        )
    replaced = torch.zeros(len(before), dtype=torch.bool)
    place = 0
    for row in ROWS:
        count = len(row["response_ids"])
        replaced[place + count - 1] = True
        place += count * (1 + kl)
    assert torch.equal(before[~replaced], after[~replaced])
    assert ((before - after)[replaced].abs() > 0.01).all()


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
    model, batch = tiny_model(), mixed_batch()
    use_packing(model)
    with counting_prompts(model) as seen:
        packed_logps(model, batch)
        padded_logps(model, batch)
    assert batch.pack is not None
    once = sum(segment.end - segment.start for segment in batch.pack.segments)
    assert seen == [once, batch.input_ids.numel()]
    assert seen[0] < seen[1]


def test_a_model_without_packed_attention_is_not_packed_in_silence() -> None:
    with pytest.raises(RuntimeError, match="attention is not the packed one"):
        packed_logps(tiny_model(), mixed_batch())


def test_a_response_without_tokens_raises() -> None:
    batch = mixed_batch()
    empty = replace(batch, pack=None, response_mask=batch.response_mask.index_fill(0, torch.tensor([7]), False))
    model = tiny_model()
    use_packing(model)
    with pytest.raises(ValueError, match="row 2: response 2 of 6 has no token"):
        packed_logps(model, empty)


def test_bf16_autocast_differs_from_fp32_by_its_rounding_only() -> None:
    model, batch = tiny_model(dtype=torch.float32), mixed_batch()
    use_packing(model)
    exact = packed_logps(model, batch).logps
    with torch.autocast("cpu", torch.bfloat16):
        rounded, padded = packed_logps(model, batch).logps, padded_logps(model, batch).logps
    assert rounded.dtype == torch.float32
    torch.testing.assert_close(rounded, exact, rtol=1e-2, atol=0)
    torch.testing.assert_close(rounded, padded, rtol=1e-2, atol=0)


def test_a_prompt_and_its_first_response_are_attended_to_where_they_are() -> None:
    given = pack([[1, 2, 3], [4, 5]], [[[6, 7], [8, 9, 6]], [[7]]])
    row = [torch.randn(1, heads, 11, 8, requires_grad=True) for heads in (4, 2, 2)]
    with CountingJoins() as joins:
        packed_attention(torch.nn.Module(), *row, None, pack=given)
    assert joins.sizes == [6, 6, 11]  # the second response's keys and values with the prompt's, and what is returned


class CountingJoins(torch.utils._python_dispatch.TorchDispatchMode):
    """Notes the positions of what is concatenated, in attention's layouts."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        found = func(*args, **(kwargs or {}))
        if func is torch.ops.aten.cat.default:
            self.sizes.append(found.shape[args[1]])
        return found
