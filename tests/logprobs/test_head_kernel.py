"""The Triton kernel against PyTorch in float64: in Triton's interpreter where there is no GPU.

Skipped where Triton is not installed: PyTorch for CUDA brings it along, PyTorch for CPUs does not.
"""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec

import pytest
import torch

from alignzoo.logprobs import softmax
from alignzoo.logprobs.softmax import ByLogits, OfLogits, Shape, by_torch, chosen, difference

needs_triton = pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed")
INTERPRETED = """
import torch
from alignzoo.logprobs.softmax import by_torch, difference
from alignzoo.logprobs.softmax_kernel import by_kernel

cpu = torch.device("cpu")
for gradient in (torch.float32, torch.bfloat16):
    for vocabulary in (1, 37, 9001):
        assert not difference(by_kernel, cpu, gradient, rows=5, vocabulary=vocabulary), (gradient, vocabulary)
raw = torch.tensor([[500.0, -500.0, 0.0], [0.0, 0.0, 1e4]])
targets = torch.tensor([1, 0])
one, other = (way(raw.clone(), targets, gradient=torch.float32) for way in (by_kernel, by_torch))
assert torch.equal(one.logps, torch.tensor([-1000.0, -1e4])), one
assert torch.equal(one.gradient, other.gradient)
assert not by_kernel(raw[:0], targets[:0], gradient=torch.float32).logps.numel()
"""


@needs_triton
@pytest.mark.slow  # the interpreter is
def test_the_kernel_gives_what_float64_gives() -> None:
    interpreter = {} if torch.cuda.is_available() else {"TRITON_INTERPRET": "1"}
    found = subprocess.run(
        [sys.executable, "-c", INTERPRETED], env={**os.environ, **interpreter}, capture_output=True, text=True
    )
    assert found.returncode == 0, found.stderr


@pytest.mark.gpu
def test_on_a_gpu_a_way_is_chosen_and_says_why() -> None:
    for gradient in (torch.bfloat16, torch.float32):
        choice = chosen(torch.device("cuda", torch.cuda.current_device()), gradient)
        assert "ms a chunk" in choice.why, choice


@pytest.mark.parametrize("gradient", [torch.float32, torch.bfloat16])
def test_pytorch_passes_the_trial_that_a_kernel_has_to_pass(gradient: torch.dtype) -> None:
    assert not difference(by_torch, torch.device("cpu"), gradient)


def wrong(name: str) -> ByLogits:
    """PyTorch with one thing spoilt."""

    def way(raw: torch.Tensor, targets: torch.Tensor, shape: Shape = softmax.PLAIN, **asked: object) -> OfLogits:
        found = by_torch(raw, targets, shape, **asked)  # type: ignore[arg-type]
        value = getattr(found, name)
        value[..., -1] += 0.02
        return found

    return way


@pytest.mark.parametrize("name", ["logps", "entropies", "gradient"])
def test_a_kernel_with_other_results_does_not(name: str) -> None:
    assert name in difference(wrong(name), torch.device("cpu"), torch.bfloat16)


def test_without_a_gpu_pytorch_is_chosen() -> None:
    choice = chosen(torch.device("cpu"), torch.float32)
    assert choice.way is by_torch
    assert "CUDA" in choice.why


class Tried:
    """What the trial on a GPU finds out, without a GPU."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, kernel: float, plain: float, why: str = "") -> None:
        monkeypatch.setattr(softmax, "difference", lambda *_: why)
        monkeypatch.setattr(softmax, "_milliseconds", lambda way, *_: plain if way is by_torch else kernel)

    def choice(self) -> softmax.Choice:
        softmax._tried.cache_clear()
        try:
            return softmax._tried(torch.device("cuda"), torch.bfloat16)
        finally:
            softmax._tried.cache_clear()


@needs_triton
def test_the_faster_way_that_is_right_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device", lambda _: torch.no_grad())
    faster, slower = Tried(monkeypatch, 1.0, 2.0).choice(), Tried(monkeypatch, 2.0, 1.0).choice()
    assert faster.way is not by_torch
    assert slower.way is by_torch
    other = Tried(monkeypatch, 1.0, 2.0, "logps").choice()
    assert other.way is by_torch
    assert "differs in logps" in other.why


def test_a_kernel_that_does_not_run_leaves_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: object) -> None:
        raise RuntimeError("no compiler\nat all")

    monkeypatch.setattr(torch.cuda, "device", broken)
    choice = Tried(monkeypatch, 1.0, 2.0).choice()
    assert choice.way is by_torch
    assert "does not run" in choice.why
