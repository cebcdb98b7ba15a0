"""``--precision auto`` and ``--weights auto``: what they become on which device, for which methods and model."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from alignzoo_estimate.knobs import computes_in_bf16

from alignzoo.errors import UsageError
from alignzoo.model import precision
from alignzoo.model.precision import device_kind, native_bf16, with_precision, with_weights
from alignzoo.model.source import ModelSource
from alignzoo.plan.plan import Plan
from alignzoo.plan.planfile import plan_layer, plan_to_dict
from alignzoo.plan.recipe import Layer
from alignzoo.plan.resolve import require, resolve

FULL, ADAPTER = ModelSource("m"), ModelSource("m", adapter="a")


def plan(**words: Any) -> Plan:
    return require(resolve([Layer("flag", {"model": "of/mine", "data": "of/mine", **words})]))


@pytest.fixture
def on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "device_kind", lambda: "cuda")
    monkeypatch.setattr(precision, "native_bf16", lambda kind: kind == "cuda")


def test_a_cpu_computes_in_fp32_without_a_word() -> None:
    resolved, why = with_precision(plan())
    assert resolved.settings.precision == "fp32"
    assert resolved.origins["precision"] == "device"
    assert why is None
    assert with_precision(resolved) == (resolved, None), "resolved once"


@pytest.mark.usefixtures("on_a_gpu")
def test_a_gpu_computes_in_bf16_unless_a_method_needs_fp32() -> None:
    resolved, why = with_precision(plan())
    assert (resolved.settings.precision, why) == ("bf16", "precision: bf16 (native on this cuda device)")
    assert with_precision(plan(geometry="sam"))[0].settings.precision == "bf16"
    resolved, why = with_precision(plan(geometry="random"))
    assert resolved.settings.precision == "fp32"
    assert "geometry random" in str(why)
    assert with_precision(plan(geometry="random", **{"lora.r": 4}))[0].settings.precision == "bf16"
    for stated in ("fp32", "bf16"):
        given = plan(geometry="random", precision=stated)
        assert with_precision(given) == (given, None)


def test_the_estimate_assumes_what_a_run_takes() -> None:
    assert computes_in_bf16(plan(geometry="sam"), cuda=True)
    assert not computes_in_bf16(plan(geometry="sam"), cuda=False)
    assert not computes_in_bf16(plan(geometry="random"), cuda=True)
    assert computes_in_bf16(plan(geometry="random", **{"lora.r": 4}), cuda=True)
    assert computes_in_bf16(plan(geometry="random", precision="bf16"), cuda=False)


@pytest.mark.parametrize(("capability", "native"), [((7, 5), False), ((8, 0), True), ((9, 0), True)])
def test_cuda_is_asked_without_emulation(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], native: bool
) -> None:
    def supported(including_emulation: bool = True) -> bool:
        return including_emulation or capability >= (8, 0)

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)
    assert native_bf16("cuda") is native
    assert not native_bf16("cpu")
    assert not native_bf16("mps")


def test_accelerate_can_keep_a_launch_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("cuda"))
    assert device_kind() == "cuda"
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    assert device_kind() == "cpu"


@pytest.mark.parametrize(
    ("words", "source", "weights"),
    [
        ({"precision": "bf16"}, FULL, "fp32"),
        ({"precision": "bf16"}, ADAPTER, "bf16"),
        ({"precision": "bf16", "lora.r": 4}, FULL, "bf16"),
        ({"precision": "fp32", "lora.r": 4}, FULL, "fp32"),
        ({"precision": "bf16", "lora.r": 4, "weights": "fp32"}, FULL, "fp32"),
    ],
)
def test_frozen_weights_follow_the_precision(words: dict[str, Any], source: ModelSource, weights: str) -> None:
    assert with_weights(plan(**words), source, trains=True).settings.weights == weights
    if "weights" not in words:
        assert with_weights(plan(**words), source, trains=False).settings.weights == "fp32"


def test_weights_in_bf16_need_an_adapter_and_bf16_products() -> None:
    with pytest.raises(UsageError, match="trains all weights"):
        with_weights(plan(precision="bf16", weights="bf16"), FULL, trains=True)
    with pytest.raises(UsageError, match="the precision is fp32"):
        with_precision(plan(weights="bf16", **{"lora.r": 4}))
    found = resolve([Layer("flag", {"weights": "bf16", "precision": "fp32", "lora.r": 4})])
    assert isinstance(found, list)
    assert "--precision bf16" in str(found[0].hint)


def test_a_recipe_made_from_a_run_leaves_both_to_the_next_device() -> None:
    resolved = with_weights(with_precision(plan(**{"lora.r": 4}))[0], FULL, trains=True)
    content = plan_to_dict(resolved)
    assert content["settings"]["precision"] == {"value": "fp32", "from": "device"}
    values = plan_layer(content, "run").values
    assert "lora.r" in values
    assert not {"precision", "weights"} & values.keys()
