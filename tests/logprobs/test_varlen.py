"""Packed attention as variable-length FlashAttention: which queries see which keys, and the call itself."""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from families import mixed_batch, model_of

from alignzoo.data.collate import TokenBatch
from alignzoo.data.pack import Pack, pack, pack_of
from alignzoo.logprobs import attention
from alignzoo.logprobs.attention import CannotPack
from alignzoo.logprobs.forward import use_packing
from alignzoo.logprobs.logps import packed_logps, padded_logps
from alignzoo.logprobs.ways import Trial, _padded, _try
from alignzoo.testing.tiny import batch_of, pair_rows, tiny_model

VARLEN = pytest.importorskip("torch.nn.attention.varlen", reason="this torch has no variable-length attention")


def flash_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    cu_seq_q: torch.Tensor,
    cu_seq_k: torch.Tensor,
    max_q: int,
    max_k: int,
    *,
    scale: float | None = None,
    window_size: tuple[int, int] = (-1, -1),
    enable_gqa: bool = False,
) -> torch.Tensor:
    """What FlashAttention documents: query i of m sees key j of n if i + n − m − left ≤ j ≤ i + n − m + right."""
    assert window_size[1] == 0
    assert enable_gqa or query.shape[1] == key.shape[1]
    queries, keys = ([slice(*ends) for ends in pairwise(starts.tolist())] for starts in (cu_seq_q, cu_seq_k))
    assert max_q == max(place.stop - place.start for place in queries)
    assert max_k == max(place.stop - place.start for place in keys)
    found = []
    for of_queries, of_keys in zip(queries, keys, strict=True):
        q, k, v = (part.transpose(0, 1)[None] for part in (query[of_queries], key[of_keys], value[of_keys]))
        distance = torch.arange(q.shape[2])[:, None] + k.shape[2] - q.shape[2] - torch.arange(k.shape[2])
        mask = (distance >= 0) & ((distance <= window_size[0]) if window_size[0] >= 0 else True)
        found.append(F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale, enable_gqa=enable_gqa))
    return torch.cat([part[0].transpose(0, 1) for part in found])


@pytest.fixture
def emulated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "varlen_function", lambda: flash_attention)


def inputs(made: Pack, heads: tuple[int, int], **kind: Any) -> list[torch.Tensor]:
    draw, size = torch.Generator().manual_seed(0), made.input_ids.shape[1]
    return [
        torch.randn(1, count, size, 8, generator=draw, dtype=torch.float64).to(**kind).requires_grad_()
        for count in (heads[0], heads[1], heads[1])
    ]


BATCHES = [mixed_batch(), batch_of(pair_rows(5, seed=3)), batch_of(pair_rows(3, seed=1)).row(1)]


@pytest.mark.usefixtures("emulated")
@pytest.mark.parametrize("window", [None, 1, 4])
@pytest.mark.parametrize("heads", [(4, 4), (4, 2)], ids=["all heads", "grouped"])
@pytest.mark.parametrize("batch", BATCHES, ids=["mixed", "pairs", "one pair"])
def test_numbers_and_gradients_are_those_of_the_segments(
    batch: TokenBatch, heads: tuple[int, int], window: int | None
) -> None:
    made = pack_of(batch)
    given, again = inputs(made, heads), inputs(made, heads)
    expected = attention._by_segments(*given, made, window, 0.3, 0.0)
    found = attention._varlen(*again, made, window, 0.3)
    torch.testing.assert_close(found, expected)
    factors = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for ours, theirs in zip(
        torch.autograd.grad((found * factors).sum(), again),
        torch.autograd.grad((expected * factors).sum(), given),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs)


def test_prompts_with_one_response_each_copy_no_keys() -> None:
    made = pack([[1, 2], [3, 4, 5]], [[[6, 7]], [[8]]]).sequences
    assert made.keys is None
    assert made.query_starts.tolist() == made.key_starts.tolist() == [0, 4, 8]
    shared = pack([[1, 2]], [[[6, 7], [8]]]).sequences
    assert shared.keys is not None
    assert shared.keys.tolist() == [0, 1, 2, 3, 0, 1, 4]
    assert (shared.query_starts.tolist(), shared.key_starts.tolist()) == ([0, 4, 5], [0, 4, 7])
    assert (shared.most_queries, shared.most_keys) == (4, 4)


def test_the_sequences_move_with_the_pack() -> None:
    made = mixed_batch().to("meta").pack
    assert made is not None
    assert made.sequences.keys is not None
    for tensor in (made.sequences.keys, made.sequences.query_starts, made.sequences.key_starts):
        assert tensor.device.type == "meta"


@pytest.mark.usefixtures("emulated")
@pytest.mark.parametrize("family", ["llama", "gemma3-window"])
def test_a_model_under_autocast_gives_the_padded_numbers(family: str) -> None:
    model, batch = model_of(family).float(), mixed_batch()
    with torch.autocast("cpu", torch.bfloat16):
        expected = padded_logps(model, batch).logps
        use_packing(model)
        found = packed_logps(model, batch, way="varlen").logps
    torch.testing.assert_close(found, expected, rtol=0.02, atol=0.05)


def test_in_fp32_segments_are_computed_instead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "varlen_function", lambda: pytest.fail("FlashAttention has no fp32"))
    model, batch = tiny_model(), mixed_batch()
    use_packing(model)
    assert torch.equal(packed_logps(model, batch, way="varlen").logps, packed_logps(model, batch).logps)


@pytest.mark.parametrize("window", [None, 4])
def test_the_installed_torch_takes_the_call(window: int | None) -> None:
    """With tensors that have a CUDA device and no data."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    made = pack_of(mixed_batch())
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
        made = made._with(partial(torch.empty_like, device="cuda"))
        query, key, value = (
            torch.empty(1, heads, made.input_ids.shape[1], 8, dtype=torch.bfloat16, device="cuda")
            for heads in (4, 2, 2)
        )
        found = attention._varlen(query, key, value, made, window, None)
    assert (found.shape, found.dtype, found.device.type) == (query.transpose(1, 2).shape, torch.bfloat16, "cuda")


def test_a_torch_whose_heads_are_not_grouped_gets_each_with_its_own_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """As 2.11 has it."""

    def older(query: Any, key: Any, value: Any, cu_seq_q: Any, cu_seq_k: Any, max_q: int, max_k: int, *,
              scale: Any = None, window_size: Any = (-1, -1)) -> Any:  # fmt: skip
        return flash_attention(
            query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, scale=scale, window_size=window_size
        )

    made = pack_of(mixed_batch())
    given, again = inputs(made, (4, 2)), inputs(made, (4, 2))
    expected = attention._by_segments(*given, made, 4, 0.3, 0.0)
    attention.varlen_function.cache_clear()
    monkeypatch.setattr(VARLEN, "varlen_attn", older)
    found = attention._varlen(*again, made, 4, 0.3)
    attention.varlen_function.cache_clear()
    torch.testing.assert_close(found, expected)
    for ours, theirs in zip(
        torch.autograd.grad(found.sum(), again), torch.autograd.grad(expected.sum(), given), strict=True
    ):
        torch.testing.assert_close(ours, theirs)


def test_a_torch_without_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def older(query: Any, key: Any, value: Any, cu_seq_q: Any, cu_seq_k: Any, max_q: int, max_k: int) -> None: ...

    attention.varlen_function.cache_clear()
    monkeypatch.setattr(VARLEN, "varlen_attn", older)
    with pytest.raises(CannotPack, match="attention with windows"):
        attention.varlen_function()
    monkeypatch.setitem(__import__("sys").modules, "torch.nn.attention.varlen", None)
    with pytest.raises(CannotPack, match="has no variable-length attention"):
        attention.varlen_function()


@pytest.mark.usefixtures("emulated")
def test_the_trial_accepts_it_in_sixteen_bits_only() -> None:
    model, batch = tiny_model(dtype=torch.float32), mixed_batch()
    assert "varlen" in tried(model, batch, torch.bfloat16)
    assert tried(model, batch, None) == "variable-length attention is for 16 bits"
    assert "varlen" in tried(tiny_model(dtype=torch.bfloat16), batch, None)
    assert model.config._attn_implementation == "sdpa"


def test_the_trial_refuses_queries_aligned_with_the_first_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    def aligned_above(query: Any, key: Any, value: Any, cu_seq_q: Any, cu_seq_k: Any, *given: Any, **named: Any) -> Any:
        cut = [torch.arange(k, k + n) for k, n in zip(cu_seq_k[:-1], cu_seq_q.diff(), strict=True)]
        places = torch.cat(cut)
        return flash_attention(query, key[places], value[places], cu_seq_q, cu_seq_q, given[0], given[0], **named)

    monkeypatch.setattr(attention, "varlen_function", lambda: aligned_above)
    assert "packed log-probs differ" in tried(model_of("llama").float(), mixed_batch(), torch.bfloat16)


def tried(model: Any, batch: TokenBatch, autocast: torch.dtype | None) -> Any:
    """The trial of this way alone: what is right, or why it is not."""
    right: dict[str, Trial] = {}
    failures: list[str] = []
    _try("varlen", model, (batch, batch), autocast, _padded(model, batch), right, failures)
    return failures[0] if failures else right


@pytest.mark.gpu
@pytest.mark.parametrize("window", [None, 4])
def test_on_a_gpu_it_is_what_is_emulated(window: int | None) -> None:
    made = pack_of(mixed_batch()).to("cuda")
    given = inputs(made, (4, 2), dtype=torch.bfloat16, device="cuda")
    wide = [part.detach().double().cpu().requires_grad_() for part in given]
    found = attention._varlen(*given, made, window, 0.3)
    expected = attention._by_segments(*wide, pack_of(mixed_batch()), window, 0.3, 0.0)
    torch.testing.assert_close(found.double().cpu(), expected, rtol=0.02, atol=0.02)
    ours, theirs = torch.autograd.grad(found.sum(), given), torch.autograd.grad(expected.sum(), wide)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one.double().cpu(), other, rtol=0.05, atol=0.05)
