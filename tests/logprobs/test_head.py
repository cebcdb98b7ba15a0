"""Log-probs from hidden states, a chunk at a time, against the direct form."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from alignzoo.logprobs import products
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


def bf16_case(vocabulary: int = 3000) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """``(K, H)`` and ``(V, H)``, exact in bf16, whose logits are as large as a model's: near 25 where they are
    largest; and targets, half of them likely."""
    draw = torch.Generator().manual_seed(0)
    weight = torch.randn(vocabulary, 64, generator=draw).bfloat16()
    targets = torch.randint(vocabulary, (40,), generator=draw)
    hidden = torch.randn(40, 64, generator=draw) * 0.8
    hidden[::2] += 0.3 * weight[targets[::2]].float()
    return hidden.bfloat16(), weight, targets


def relative_errors(
    found: torch.Tensor, hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor
) -> tuple[float, list[float]]:
    """Root mean square of the log-probs' errors, and the relative ones of the gradients of leaves ``hidden`` and
    ``weight``, against float64."""
    exact = [leaf.detach().double().requires_grad_() for leaf in (hidden, weight)]
    expected, _ = direct(*exact, None, targets, PLAIN)
    cotangents = torch.linspace(-1, 2, len(targets), dtype=torch.float64)
    theirs = torch.autograd.grad((expected * cotangents).sum(), exact)
    own = torch.autograd.grad((found * cotangents).sum(), [hidden, weight])
    errors = [((one.double() - other).norm() / other.norm()).item() for one, other in zip(own, theirs, strict=True)]
    return (found.double() - expected).square().mean().sqrt().item(), errors


@pytest.mark.parametrize("way", ["kept", "again"])
@pytest.mark.parametrize("master", [torch.float32, torch.bfloat16])
def test_bf16_products_are_summed_in_fp32(way: str, master: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "BLOCK", 64 * 70)  # many, and one that is shorter
    hidden, weight, targets = bf16_case()
    leaves = hidden.requires_grad_(), weight.to(master).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        found, _ = token_logps(*leaves, targets, chunk=15 * 3000, **({} if way == "kept" else {"kept": 0}))
        rounded = F.linear(*leaves).float().log_softmax(-1).gather(-1, targets[:, None])[:, 0]
    assert found.dtype == torch.float32
    of_values, of_gradients = relative_errors(found, *leaves, targets)
    of_rounded, of_rounded_gradients = relative_errors(rounded, *leaves, targets)
    assert of_values < 0.002 < 0.02 < of_rounded
    assert max(of_gradients) < 0.004 < 0.008 < max(of_rounded_gradients)


def test_kept_gradients_take_two_bytes_each_in_bf16_and_count_as_such() -> None:
    hidden, weight, targets = bf16_case()
    leaves = hidden.requires_grad_(), weight.float().requires_grad_()
    for chunk in (15 * 3000, 40 * 3000):
        sizes: list[int] = []

        def packed(saved: torch.Tensor, sizes: list[int] = sizes) -> torch.Tensor:
            sizes.append(saved.nbytes if saved.shape == (40, 3000) else 0)
            return saved

        with (
            torch.autograd.graph.saved_tensors_hooks(packed, lambda saved: saved),
            torch.autocast("cpu", torch.bfloat16),
        ):
            token_logps(*leaves, targets, chunk=chunk, kept=2 * 40 * 3000)
        assert max(sizes) == 2 * 40 * 3000


@pytest.mark.parametrize("vocabulary", [5, 63, 64 * 3, 64 * 40, 64 * 40 + 17])
def test_the_largest_logits_are_found_by_groups(vocabulary: int) -> None:
    logits = torch.randn(30, vocabulary, generator=torch.Generator().manual_seed(0))
    logits[0, -20:] += 9  # in the last group, and after it
    logits[1, :20] += 9
    count = min(16, vocabulary)
    columns = products._largest(logits, count)
    assert all(len(set(row)) == count for row in columns.tolist())
    found, expected = logits.gather(1, columns).sort().values, logits.topk(count).values.sort().values
    assert torch.equal(found, expected)


def test_bf16_with_a_frozen_head_a_bias_and_a_cap() -> None:
    hidden, weight, targets = bf16_case()
    leaf, shape = hidden.requires_grad_(), Shape(0.9, 30.0)
    bias = torch.linspace(-1, 1, len(weight))
    found, entropies = token_logps(leaf, weight, targets, bias=bias, shape=shape, entropy=True)
    frozen, _ = token_logps(leaf, weight, targets, bias=bias, shape=shape)
    exact = leaf.detach().double().requires_grad_()
    expected, of_exact = direct(exact, weight.double(), bias.double(), targets, shape)
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=0.02)
    assert entropies is not None
    torch.testing.assert_close(entropies.double(), of_exact, rtol=0, atol=0.02)
    assert torch.equal(found, frozen)
    (own,), (theirs,) = (torch.autograd.grad(values.sum(), to) for values, to in ((frozen, leaf), (expected, exact)))
    assert own.dtype == torch.bfloat16
    assert (own.double() - theirs).norm() < 0.005 * theirs.norm()


def test_a_weights_gradient_over_many_chunks_loses_nothing_in_bf16() -> None:
    hidden, weight, targets = bf16_case()
    for rows in (40, 1):
        leaf = weight.detach().requires_grad_()
        values, _ = token_logps(hidden, leaf, targets, chunk=rows * 3000, kept=0)
        (found,) = torch.autograd.grad(values.sum(), leaf)
        exact = weight.detach().double().requires_grad_()
        (expected,) = torch.autograd.grad(direct(hidden.double(), exact, None, targets, PLAIN)[0].sum(), exact)
        assert (found.double() - expected).norm() < 0.004 * expected.norm()
