"""What methods read beside log-probs, through models: against whole logits and per-response autograd in float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from alignzoo.contract.responses import ResponseBatch
from alignzoo.data.collate import TokenBatch
from alignzoo.errors import ModelError
from alignzoo.logprobs.forward import choose_forward, use_packing
from alignzoo.logprobs.logps import packed_logps, padded_logps
from alignzoo.logprobs.statistics import Ask, Statistics
from alignzoo.logprobs.teacher import HeadInputs, Logits, apart, teacher_of
from alignzoo.reference.frozen import Reference
from alignzoo.testing.tiny import batch_of, random_rows, shifted, tiny_model, with_adapter

ALL = Statistics(kl=True, entropies=True, collisions=True)
FAMILIES = ("llama", "gemma2", "gpt2", "qwen3")


def batch() -> TokenBatch:
    return batch_of(random_rows([2, 3, 1], seed=4), shape="ranked")


def sequences(given: TokenBatch) -> list[tuple[torch.Tensor, int]]:
    """Each response after its prompt ``(1, L)``, and where it begins."""
    every = []
    for r in range(given.responses):
        start, length = int(given.prompt_lengths[given.prompt[r]]), int(given.lengths[r])
        every.append((given.input_ids[r : r + 1, : start + length], start))
    return every


def logits_of(model: Any, ids: torch.Tensor, start: int) -> torch.Tensor:
    """``(n, V)`` log-probs of the response's tokens."""
    return model(input_ids=ids).logits[0, start - 1 : -1].log_softmax(-1)


def dense(policy: Any, reference: Any, given: TokenBatch) -> dict[str, torch.Tensor]:
    """All statistics of single sequences, one after another."""
    found: dict[str, list[torch.Tensor]] = {"kls": [], "ref_entropies": [], "collisions": []}
    for ids, start in sequences(given):
        own = logits_of(policy, ids, start)
        with torch.no_grad():
            theirs = logits_of(reference, ids, start)
        found["kls"].append((theirs.exp() * (theirs - own)).sum())
        entropy = torch.distributions.Categorical(logits=theirs).entropy()
        found["ref_entropies"].append(entropy.sum() / torch.tensor(float(own.shape[-1])).log())
        found["collisions"].append(own.detach().exp().square().sum(-1).log().sum())
    return {name: torch.stack(values) for name, values in found.items()}


def through(policy: Any, reference: Any, given: TokenBatch, forward: Any) -> ResponseBatch:
    """The policy's responses beside the reference's on the same batch."""
    of_reference = Reference(reference, forward, ask=ALL.of_reference())(given)
    found = forward(policy, given, ALL.of_policy(teacher_of(of_reference)))
    assert of_reference.ref_entropies is not None
    return ResponseBatch(**{**found.present(), "ref_entropies": of_reference.ref_entropies})


def gradient(model: Any, value: torch.Tensor) -> torch.Tensor:
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    found = torch.autograd.grad(value, weights, allow_unused=True)
    return torch.cat(
        [
            torch.zeros(w.numel(), dtype=w.dtype) if g is None else g.flatten()
            for w, g in zip(weights, found, strict=True)
        ]
    )


def same(found: ResponseBatch, expected: dict[str, torch.Tensor], policy: Any, **tolerance: float) -> None:
    for name, value in expected.items():
        torch.testing.assert_close(getattr(found, name), value, **tolerance)
    draw = torch.Generator().manual_seed(1)
    weights = torch.rand(len(found), generator=draw, dtype=torch.float64)
    assert found.kls is not None
    torch.testing.assert_close(
        gradient(policy, (found.kls * weights).sum()), gradient(policy, (expected["kls"] * weights).sum()), **tolerance
    )


NEAR = {"rtol": 1e-5, "atol": 1e-6}
"""Norms of some families compute in fp32."""


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("packed", [False, True])
def test_packed_and_padded_give_what_single_sequences_do(name: str, packed: bool) -> None:
    policy = tiny_model(name)
    reference, given = shifted(policy), batch()
    expected = dense(policy, reference, given)
    forward: Any = padded_logps
    if packed:
        forward = choose_forward(policy, given).forward
        if name != "gemma2":
            assert forward.func is packed_logps
            use_packing(reference)
    same(through(policy, reference, given, forward), expected, policy, **NEAR)


@pytest.mark.parametrize("packed", [False, True])
def test_an_adapter_is_compared_with_its_base(packed: bool) -> None:
    base = tiny_model()
    given, other = batch(), tiny_model()
    policy = with_adapter(base)
    with torch.no_grad():
        for name, weight in policy.named_parameters():
            if "lora_B" in name:
                weight += 0.3 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(3))
    if packed:
        use_packing(policy)
    forward: Any = packed_logps if packed else padded_logps
    expected = dense(policy, other, given)
    assert expected["kls"].min() > 1e-3
    same(through(policy, policy, given, forward), expected, policy, **NEAR)


def test_an_adapted_head_is_compared_by_logits() -> None:
    """Its head is no plain linear map."""
    from peft import LoraConfig, get_peft_model

    base = tiny_model()
    torch.manual_seed(0)
    targets = ["q_proj", "lm_head"]
    policy: Any = get_peft_model(base, LoraConfig(r=2, target_modules=targets, task_type="CAUSAL_LM")).double()
    with torch.no_grad():
        for name, weight in policy.named_parameters():
            if "lora_B" in name:
                weight += 0.3 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(3))
    given = batch()
    taught = Reference(policy, padded_logps, ask=ALL.of_reference())(given)
    assert isinstance(teacher_of(taught), Logits)
    same(through(policy, policy, given, padded_logps), dense(policy, tiny_model(), given), policy, **NEAR)


def test_only_the_inputs_of_the_head_are_kept() -> None:
    model, given = tiny_model(), batch()
    teacher = teacher_of(Reference(model, padded_logps, ask=ALL.of_reference())(given))
    assert isinstance(teacher, HeadInputs)
    assert teacher.hidden.shape == (int(given.lengths.sum()), 32)
    assert not teacher.hidden.requires_grad


def test_a_teacher_apart_does_not_move_with_its_model() -> None:
    model, given = tiny_model(), batch()
    copies: dict[int, Any] = {}
    with torch.no_grad():
        found = [apart(padded_logps(model, given, Ask(teach=True)), copies) for _ in range(2)]
        before = [t.opened()(slice(0, 3)) for t in map(teacher_of, found) if t is not None]
        model.lm_head.weight.mul_(2)
        after = [t.opened()(slice(0, 3)) for t in map(teacher_of, found) if t is not None]
    assert len(before) == 2
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))
    heads = {id(t.head) for t in map(teacher_of, found) if isinstance(t, HeadInputs)}
    assert len(heads) == 1


def test_of_itself_a_model_differs_by_nothing() -> None:
    policy, given = tiny_model(dtype=torch.float32), batch()
    assert torch.equal(through(policy, policy, given, padded_logps).kls, torch.zeros(given.responses))  # type: ignore[arg-type]


def norms_of_single(model: Any, given: TokenBatch) -> torch.Tensor:
    """‖∂ log π(y|x) / ∂ embeddings‖², one response after another."""
    found = []
    for ids, start in sequences(given):
        embeddings = model.get_input_embeddings()(ids)
        if not embeddings.requires_grad:
            embeddings.requires_grad_(True)
        logps = model(inputs_embeds=embeddings).logits[0, start - 1 : -1].log_softmax(-1)
        value = logps.gather(-1, ids[0, start:, None]).sum()
        found.append(torch.autograd.grad(value, embeddings, create_graph=True)[0].square().sum())
    return torch.stack(found)


@pytest.mark.parametrize("name", FAMILIES)
def test_norms_of_embedding_gradients_and_their_gradients(name: str) -> None:
    from torch.nn.attention import SDPBackend, sdpa_kernel

    policy, given = tiny_model(name), batch()
    found = padded_logps(policy, given, Ask(embeddings=True)).embedding_norms
    assert found is not None
    with sdpa_kernel([SDPBackend.MATH]):
        expected = norms_of_single(policy, given)
    assert expected.min() > 0
    torch.testing.assert_close(found, expected, **NEAR)
    weights = torch.arange(1.0, len(found) + 1, dtype=torch.float64)
    torch.testing.assert_close(
        gradient(policy, (found * weights).sum()), gradient(policy, (expected * weights).sum()), rtol=1e-4, atol=1e-5
    )


def test_norms_are_given_without_gradients_too() -> None:
    policy, given = tiny_model(), batch()
    found = padded_logps(policy, given, Ask(embeddings=True))
    with torch.no_grad():
        again = padded_logps(policy, given, Ask(embeddings=True))
    assert all(not value.requires_grad for value in again.present().values())
    torch.testing.assert_close(again.embedding_norms, found.embedding_norms.detach())  # type: ignore[union-attr]
    assert all(weight.grad is None for weight in policy.parameters())


def test_norms_of_frozen_embeddings_under_an_adapter() -> None:
    policy, given = with_adapter(tiny_model()), batch()
    found = padded_logps(policy, given, Ask(embeddings=True)).embedding_norms
    torch.testing.assert_close(found, norms_of_single(tiny_model(), given).detach(), **NEAR)
    assert found is not None
    assert gradient(policy, found.sum()).abs().max() > 0


def test_norms_and_kl_in_one_pass() -> None:
    policy, given = tiny_model(), batch()
    reference = shifted(policy)
    teacher = teacher_of(Reference(reference, padded_logps, ask=Ask(teach=True))(given))
    found = padded_logps(policy, given, Ask(teacher, collisions=True, embeddings=True))
    expected = dense(policy, reference, given)
    torch.testing.assert_close(found.kls, expected["kls"], **NEAR)
    torch.testing.assert_close(found.collisions, expected["collisions"], **NEAR)
    torch.testing.assert_close(found.embedding_norms, norms_of_single(policy, given), **NEAR)


def test_embedding_gradients_turn_packing_off_and_say_so() -> None:
    choice = choose_forward(tiny_model(), batch(), embeddings=True)
    assert not choice.packed
    assert "gradients by the input embeddings" in choice.why


class Once(torch.autograd.Function):
    """A layer that cannot be differentiated twice."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x * 1.0

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        return gradient


def test_a_model_that_cannot_be_differentiated_twice_is_refused() -> None:
    model = tiny_model()
    model.model.norm.register_forward_hook(lambda _module, _inputs, given: Once.apply(given))
    with pytest.raises(ModelError, match="differentiate"):
        choose_forward(model, batch(), embeddings=True)


def test_nothing_more_is_computed_where_nothing_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_given: Any, **_asked: Any) -> Any:
        raise AssertionError("a plain pass asked for statistics")

    monkeypatch.setattr("alignzoo.logprobs.heads.values_at", fail)
    monkeypatch.setattr("alignzoo.logprobs.heads.values_of_logits", fail)
    monkeypatch.setattr("alignzoo.logprobs.logps.norms", fail)
    found = padded_logps(tiny_model(), batch(), Statistics().of_policy(None))
    assert set(found.present()) >= {"logps"}
    assert found.kls is None
    assert found.collisions is None
