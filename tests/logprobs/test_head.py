"""Log-probs from hidden states, a chunk at a time, against the direct form."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from alignzoo.logprobs.head import token_logps
from alignzoo.logprobs.softmax import PLAIN, Shape

K, H, V = 11, 6, 37
SHAPES = {"plain": PLAIN, "scaled": Shape(scale=0.7), "capped": Shape(softcap=3.0), "both": Shape(1.7, 2.0)}
WAYS = {"kept": {"chunk": 4 * V}, "again": {"chunk": 4 * V, "kept": 0}, "one by one": {"chunk": 1, "kept": 0}}


def inputs(dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    hidden = torch.randn(K, H, generator=draw, dtype=dtype).requires_grad_()
    weight = torch.randn(V, H, generator=draw, dtype=dtype).requires_grad_()
    bias = torch.randn(V, generator=draw, dtype=dtype).requires_grad_()
    return hidden, weight, bias, torch.randint(V, (K,), generator=draw)


def direct(
    hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, targets: torch.Tensor, shape: Shape
) -> tuple[torch.Tensor, torch.Tensor]:
    logits = F.linear(hidden, weight, bias) * shape.scale
    if shape.softcap is not None:
        logits = shape.softcap * torch.tanh(logits / shape.softcap)
    logps = logits.log_softmax(-1)
    return logps.gather(-1, targets[:, None])[:, 0], -(logps.exp() * logps).sum(-1)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("entropy", [False, True])
def test_values_and_gradients_are_those_of_the_direct_form(way: str, shape: str, entropy: bool) -> None:
    hidden, weight, bias, targets = inputs()
    found = token_logps(hidden, weight, targets, bias=bias, shape=SHAPES[shape], entropy=entropy, **WAYS[way])
    expected = direct(hidden, weight, bias, targets, SHAPES[shape])
    cotangents = torch.linspace(-2, 3, K, dtype=torch.float64)

    def scalar(values: torch.Tensor, entropies: torch.Tensor | None) -> torch.Tensor:
        total = (values * cotangents).sum()
        return total + (entropies * cotangents.flip(0)).sum() if entropy and entropies is not None else total

    leaves = (hidden, weight, bias)
    torch.testing.assert_close(found[0], expected[0])
    assert (found[1] is None) != entropy
    if found[1] is not None:
        torch.testing.assert_close(found[1], expected[1])
    for one, other in zip(
        torch.autograd.grad(scalar(*found), leaves), torch.autograd.grad(scalar(*expected), leaves), strict=True
    ):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("shape", SHAPES)
def test_gradcheck(way: str, shape: str) -> None:
    hidden, weight, bias, targets = inputs()

    def of(hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> tuple[torch.Tensor, ...]:
        values, _ = token_logps(hidden, weight, targets, bias=bias, shape=SHAPES[shape], **WAYS[way])
        return (values,)

    assert torch.autograd.gradcheck(of, (hidden, weight, bias))


@pytest.mark.parametrize("frozen", ["head", "hidden"])
def test_what_is_frozen_gets_no_gradient_and_the_rest_gets_its_own(frozen: str) -> None:
    hidden, weight, bias, targets = inputs()
    for leaf in (weight, bias) if frozen == "head" else (hidden,):
        leaf.requires_grad_(False)
    leaves = [leaf for leaf in (hidden, weight, bias) if leaf.requires_grad]
    found, _ = token_logps(hidden, weight, targets, bias=bias, chunk=4 * V, kept=0)
    expected, _ = direct(hidden, weight, bias, targets, PLAIN)
    squares = [torch.autograd.grad(values.square().sum(), leaves) for values in (found, expected)]
    for one, other in zip(*squares, strict=True):
        torch.testing.assert_close(one, other)


def test_the_logits_never_exist_whole() -> None:
    hidden, weight, bias, targets = inputs(torch.float32)
    largest: list[int] = []

    class Largest(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            out = func(*args, **(kwargs or {}))
            largest.append(out.numel() if isinstance(out, torch.Tensor) else 0)
            return out

    with Largest():
        values, _ = token_logps(hidden.repeat(9, 1), weight, targets.repeat(9), bias=bias, chunk=20 * V, kept=0)
        values.sum().backward()
    assert 15 * V <= max(largest) <= 20 * V


def test_nothing_is_prepared_for_a_backward_that_cannot_come() -> None:
    hidden, weight, bias, targets = inputs()
    with torch.no_grad(), Counting() as counted:
        token_logps(hidden, weight, targets, bias=bias)
    assert not counted.names & {"aten.exp_.default", "aten.neg_.default"}
    with Counting() as counted:
        token_logps(hidden, weight, targets, bias=bias)
    assert counted.names >= {"aten.exp_.default", "aten.neg_.default"}


class Counting(torch.utils._python_dispatch.TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        self.names.add(str(func))
        return func(*args, **(kwargs or {}))


def test_an_unlikely_token_has_a_finite_log_prob_and_gradient() -> None:
    hidden = torch.tensor([[500.0, 0.0]], requires_grad=True)
    weight = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]], requires_grad=True)
    values, _ = token_logps(hidden, weight, torch.tensor([1]))
    assert values.item() == pytest.approx(-1000.0)
    values.sum().backward()
    assert hidden.grad is not None
    assert torch.equal(hidden.grad, torch.tensor([[-2.0, 0.0]]))


def test_under_autocast_the_products_are_bf16_and_the_sums_fp32() -> None:
    hidden, weight, _, targets = inputs(torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        values, _ = token_logps(hidden, weight, targets)
    assert values.dtype == torch.float32
    logits = F.linear(hidden.bfloat16(), weight.bfloat16())
    assert logits.dtype == torch.bfloat16
    expected = logits.float().log_softmax(-1).gather(-1, targets[:, None])[:, 0]
    assert torch.equal(values, expected)
    values.sum().backward()
    assert weight.grad is not None
    assert weight.grad.dtype == torch.float32
