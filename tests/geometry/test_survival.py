"""What share of a perturbation the forward sees: from the casts that a forward really makes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from torch.utils._python_dispatch import TorchDispatchMode

from alignzoo.geometry.perturb import perturbed
from alignzoo.geometry.survival import Survival, dtypes_in_forward
from alignzoo.testing.tiny import SMALL, tiny_model, with_adapter


class Casts(TorchDispatchMode):
    """The addresses of what is cast to bf16."""

    def __init__(self) -> None:
        super().__init__()
        self.cast: set[int] = set()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function is torch.ops.aten._to_copy.default and kwargs.get("dtype") == torch.bfloat16:
            self.cast.add(args[0].untyped_storage().data_ptr())
        return function(*args, **(kwargs or {}))


def opt() -> Any:
    sizes = {"hidden_size": 32, "word_embed_proj_dim": 32, "ffn_dim": 48, "num_attention_heads": 4}
    return transformers.OPTForCausalLM(transformers.OPTConfig(vocab_size=64, num_hidden_layers=2, **sizes)).eval()


def mixtral(experts: str) -> Any:
    config = transformers.MixtralConfig(**SMALL, num_local_experts=4, num_experts_per_tok=2)
    model = transformers.MixtralForCausalLM(config).eval()
    model.set_experts_implementation(experts)
    return model


MODELS = {
    "llama": lambda: tiny_model(dtype=torch.float32),
    "gemma3": lambda: tiny_model("gemma3", dtype=torch.float32),
    "gpt2": lambda: tiny_model("gpt2", dtype=torch.float32),
    "opt": opt,
    "grouped experts": lambda: mixtral("grouped_mm"),
    "experts one by one": lambda: mixtral("eager"),
    "lora": lambda: with_adapter(tiny_model(dtype=torch.float32)),
}


@pytest.mark.parametrize("name", MODELS)
def test_the_dtypes_are_those_of_a_forward(name: str) -> None:
    model = MODELS[name]()
    named = dict(model.named_parameters())
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, cache_enabled=False), Casts() as seen:
        model(input_ids=torch.arange(3, 12)[None])
    expected = {name: weight.untyped_storage().data_ptr() in seen.cast for name, weight in named.items()}
    assert len(set(expected.values())) == 2
    dtypes = dtypes_in_forward(model, list(named.values()), torch.bfloat16)
    assert {n: d == torch.bfloat16 for n, d in zip(named, dtypes, strict=True)} == expected
    assert set(dtypes_in_forward(model, list(named.values()), None)) == {torch.float32}


def survival(weight: torch.Tensor, delta: torch.Tensor, dtype: torch.dtype) -> float:
    found = Survival()
    with perturbed([weight], [delta], survival=found, dtypes=[dtype]):
        return found.share([weight])


def test_survival_is_the_share_that_the_rounded_weights_have_of_the_perturbation() -> None:
    draw = torch.Generator().manual_seed(0)
    weight = torch.nn.Parameter(torch.randn(64, 70, generator=draw).bfloat16().float())  # of a bf16 checkpoint
    delta = 2e-3 * torch.randn(64, 70, generator=draw)
    arrived = ((weight + delta).bfloat16().double() - weight.bfloat16().double()).detach()
    share = float((arrived * delta).sum() / delta.double().square().sum())
    assert 0.2 < share < 0.9
    assert survival(weight, delta, torch.bfloat16) == pytest.approx(share, rel=1e-5)
    assert survival(weight, delta, torch.float32) == pytest.approx(1, abs=1e-4)
    assert survival(weight, 1e-6 * delta, torch.bfloat16) == 0
    assert survival(weight, torch.zeros_like(delta), torch.bfloat16) == 1
