"""Weights that are gathered in bf16: the numbers of autocast, with less to gather and to keep."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from alignzoo.distributed.narrow import GatheredLinear
from alignzoo.distributed.sharding import decoder_layers, resharding, shard
from alignzoo.distributed.shards import local
from alignzoo.testing.ranks import on_two_ranks
from alignzoo.testing.tiny import tiny_model, with_adapter

FAMILIES = ["llama", "qwen3", "gemma2"]


def _forward(model: Any, ids: torch.Tensor) -> torch.Tensor:
    logits: torch.Tensor = model(input_ids=ids).logits
    return logits


def two_steps(family: str, recomputed: bool, narrow: torch.dtype | None) -> tuple[list[torch.Tensor], int]:
    """All numbers of two steps of two micro-batches under autocast, and the bytes that they gathered."""
    model = tiny_model(family, dtype=torch.float32).train()
    if recomputed:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    model, numbers, gathered = shard(model, narrow=narrow), list[torch.Tensor](), 0
    gather, rank = torch.distributed.all_gather_single, torch.distributed.get_rank()

    def counting(output_tensor: torch.Tensor, *given: Any, **words: Any) -> Any:
        nonlocal gathered
        gathered += output_tensor.nbytes
        return gather(output_tensor, *given, **words)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.distributed, "all_gather_single", counting)
        for _ in range(2):
            for ids in ([5, 9, 31, 7], [8, 3, 11, 2]):
                batch = torch.tensor([ids]) + rank
                with torch.autocast("cpu", torch.bfloat16, cache_enabled=False):
                    with torch.no_grad():
                        numbers.append(resharding(_forward)(model, batch))
                    logits = _forward(model, batch)
                logits.float().logsumexp(-1).sum().backward()
                numbers.append(logits.detach())
            with torch.no_grad():
                for weight in model.parameters():
                    numbers.append(local(weight.grad).clone())
                    weight.add_(weight.grad, alpha=0.01)  # as a controller moves the shards
    return numbers, gathered


def both_ways(family: str, recomputed: bool) -> dict[str, Any]:
    (wide, much), (narrow, little) = (two_steps(family, recomputed, dtype) for dtype in (None, torch.bfloat16))
    weights = list(tiny_model(family).named_parameters())
    of_layers = sum(weight.numel() for name, weight in weights if ".layers." in name and weight.ndim == 2)
    return {
        "dtypes": [number.dtype for number in wide] == [number.dtype for number in narrow],
        "apart": max(float((a - b).norm() / a.norm()) for a, b in zip(wide, narrow, strict=True)),
        "saved": much - little,
        "of layers": of_layers,
    }


@pytest.mark.parametrize("recomputed", [False, True], ids=["kept", "recomputed"])
@pytest.mark.parametrize("family", FAMILIES)
def test_weights_gathered_in_bf16_give_the_same_numbers(family: str, recomputed: bool) -> None:
    for found in on_two_ranks(both_ways, family, recomputed, modules=[__name__]):
        assert found["dtypes"]
        assert found["apart"] < 1e-5  # sums of fp32 in another order; one rounding of all to bf16 is 2e-3
        assert found["saved"] >= 2 * 4 * 3 * found["of layers"]  # 2 bytes; four micro-batches; two forwards, a backward


def kinds_of_linear_maps() -> list[int]:
    """How many maps of a model are gathered in bf16: of a plain one, of an adapted one, of GPT-2, and of one whose
    layers have weights of their own beside their parts."""
    models = [tiny_model(dtype=torch.float32), with_adapter(tiny_model(dtype=torch.float32))]
    models.append(tiny_model("gpt2", dtype=torch.float32))
    models.append(tiny_model(dtype=torch.float32))
    for layer in decoder_layers(models[-1]):
        layer.gate = torch.nn.Parameter(torch.zeros(2))
    counts = []
    for model in models:
        sharded = shard(model, narrow=torch.bfloat16)
        layers = [module for layer in decoder_layers(sharded) for module in layer.modules()]
        counts.append(sum(isinstance(module, GatheredLinear) for module in layers))
        ids = torch.tensor([[5, 9, 31, 7]])
        with torch.no_grad():
            alone = resharding(_forward)(sharded, ids)  # without autocast, as models are tried
        assert alone.dtype == torch.float32
    return counts


def test_other_layers_are_gathered_as_they_are() -> None:
    for counts in on_two_ranks(kinds_of_linear_maps, modules=[__name__]):
        assert counts[0] > 0
        assert counts[1:] == [0, 0, 0]
