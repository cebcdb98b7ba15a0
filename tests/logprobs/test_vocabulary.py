"""KL, entropies and collisions of whole distributions, against what autograd makes of dense logits in float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from alignzoo.logprobs.softmax import PLAIN, Shape
from alignzoo.logprobs.teacher import HeadInputs, Logits
from alignzoo.logprobs.vocabulary import Values, values_at, values_of_logits

K, H, V = 11, 6, 23
SHAPES = {"plain": PLAIN, "scaled": Shape(0.3), "capped": Shape(1.0, 2.5), "both": Shape(1.7, 4.0)}
WAYS: dict[str, Any] = {
    "kept": {},
    "again": {"kept": 0},
    "again in chunks": {"kept": 0, "chunk": 6 * V},
    "kept in chunks": {"chunk": 6 * V},
    "one at a time": {"kept": 0, "chunk": 1},
}


def inputs(dtype: torch.dtype = torch.float64, *, bias: bool = True) -> Any:
    torch.manual_seed(0)
    hidden, weight = torch.randn(K, H, dtype=torch.float64), torch.randn(V, H, dtype=torch.float64)
    given = [hidden, weight, *([torch.randn(V, dtype=torch.float64)] if bias else [])]
    own = [value.to(dtype).requires_grad_(True) for value in given]
    head = torch.nn.Linear(H, V, bias=bias, dtype=dtype)
    other = HeadInputs(torch.randn(K, H, dtype=torch.float64).to(dtype), head, Shape(0.8, 3.0), dtype)
    return own, torch.randint(0, V, (K,)), other


def dense(own: Any, targets: torch.Tensor, teacher: HeadInputs, shape: Shape) -> Values:
    """The same from whole logits, by PyTorch's own functions."""

    def shaped(raw: torch.Tensor, how: Shape) -> torch.Tensor:
        raw = raw * how.scale
        return raw if how.softcap is None else how.softcap * torch.tanh(raw / how.softcap)

    logps = shaped(F.linear(own[0], *own[1:]), shape).log_softmax(-1)
    theirs = shaped(F.linear(teacher.hidden, teacher.head.weight, teacher.head.bias), teacher.shape).log_softmax(-1)
    return Values(
        logps.gather(-1, targets[:, None])[:, 0],
        F.kl_div(logps, theirs.detach(), log_target=True, reduction="none").sum(-1),
        torch.distributions.Categorical(logits=logps).entropy().detach() / torch.tensor(float(V)).log(),
        logps.exp().square().sum(-1).log().detach(),
    )


def gradients(found: Values, leaves: list[torch.Tensor]) -> list[torch.Tensor]:
    draw = torch.Generator().manual_seed(3)
    of_logps, of_kls = torch.randn(2, K, generator=draw, dtype=torch.float64).to(found.logps)
    assert found.kls is not None
    return list(torch.autograd.grad((found.logps * of_logps + found.kls * of_kls).sum(), leaves))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("bias", [True, False])
def test_values_and_gradients_are_those_of_dense_logits(way: str, shape: str, bias: bool) -> None:
    own, targets, teacher = inputs(bias=bias)
    asked: Any = {"teacher": teacher, "entropies": True, "collisions": True}
    found = values_at(*own[:2], targets, bias=own[2] if bias else None, shape=SHAPES[shape], **asked, **WAYS[way])
    expected = dense(own, targets, teacher, SHAPES[shape])
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)
    assert found.entropies is not None
    assert found.collisions is not None
    assert not found.entropies.requires_grad
    assert not found.collisions.requires_grad
    for one, other in zip(gradients(found, own), gradients(expected, own), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("way", ["kept", "again in chunks"])
def test_a_frozen_head_gives_the_same_gradient_of_its_inputs(way: str, shape: str) -> None:
    own, targets, teacher = inputs()
    expected = gradients(dense(own, targets, teacher, SHAPES[shape]), own[:1])
    frozen = [own[0], own[1].detach(), own[2].detach()]
    found = values_at(*frozen[:2], targets, bias=frozen[2], shape=SHAPES[shape], teacher=teacher, **WAYS[way])
    torch.testing.assert_close(gradients(found, own[:1]), expected)


@pytest.mark.parametrize("chunk", [1, 3 * V, 100 * V])
@pytest.mark.parametrize("of_logits", [False, True])
def test_whole_logits_give_the_same(chunk: int, of_logits: bool) -> None:
    own, targets, given = inputs()
    expected = dense(own, targets, given, PLAIN)
    teacher: Any = given
    if of_logits:
        raw = F.linear(given.hidden, given.head.weight, given.head.bias).detach()
        teacher = Logits(given.shape.applied(raw)[0], raw.device)
    logits = F.linear(own[0], own[1], own[2])
    found = values_of_logits(logits, targets, teacher=teacher, entropies=True, collisions=True, chunk=chunk)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)
    torch.testing.assert_close(gradients(found, own), gradients(expected, own))


def test_what_is_not_asked_for_is_not_there() -> None:
    own, targets, teacher = inputs()
    assert values_at(*own[:2], targets, bias=own[2])[1:] == (None, None, None)
    alone = values_at(*own[:2], targets, bias=own[2], collisions=True)
    assert alone.kls is None
    assert alone.entropies is None
    expected = dense(own, targets, teacher, PLAIN)
    torch.testing.assert_close(alone.collisions, expected.collisions)
    of_alone, of_dense = (torch.autograd.grad(v.logps.sum(), own, retain_graph=True) for v in (alone, expected))
    torch.testing.assert_close(of_alone, of_dense)


def test_a_model_has_no_kl_from_itself_and_no_gradient_of_it() -> None:
    own, targets, given = inputs(torch.float32)
    head = given.head
    with torch.no_grad():
        head.weight.copy_(own[1])
        head.bias.copy_(own[2])
    teacher = HeadInputs(own[0].detach(), head, PLAIN, torch.float32)
    found = values_at(*own[:2], targets, bias=own[2], teacher=teacher)
    assert found.kls is not None
    assert torch.equal(found.kls, torch.zeros(K))
    assert all(torch.equal(g, torch.zeros_like(g)) for g in torch.autograd.grad(found.kls.sum(), own))


@pytest.mark.parametrize("way", ["kept", "again in chunks"])
@pytest.mark.parametrize("frozen", [True, False])
def test_under_autocast_products_are_bf16_and_all_else_is_fp32(way: str, frozen: bool) -> None:
    own, targets, given = inputs(torch.float32)
    teacher = HeadInputs(given.hidden, given.head, given.shape, torch.bfloat16)
    expected = dense(own, targets, teacher, PLAIN)
    leaves = own[:1] if frozen else own
    weight, bias = (value.detach() if frozen else value for value in own[1:])
    with torch.autocast("cpu", torch.bfloat16):
        found = values_at(own[0], weight, targets, bias=bias, teacher=teacher, collisions=True, **WAYS[way])
    for name in ("logps", "kls", "collisions"):
        one = getattr(found, name)
        assert one.dtype == torch.float32
        torch.testing.assert_close(one, getattr(expected, name), rtol=0.03, atol=0.03)
    for one, other in zip(gradients(found, leaves), gradients(expected, leaves), strict=True):
        assert (one - other).norm() < 0.02 * other.norm()


def test_gradcheck_of_kl_in_float64() -> None:
    own, targets, teacher = inputs()

    def kls(*leaves: torch.Tensor) -> Any:
        return values_at(*leaves[:2], targets, bias=leaves[2], shape=SHAPES["both"], teacher=teacher, kept=0)[:2]

    assert torch.autograd.gradcheck(kls, own)
