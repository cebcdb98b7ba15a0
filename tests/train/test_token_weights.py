"""Weights of tokens in a step: exact however it is cut, and the same in all of its passes."""

from __future__ import annotations

import copy
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from accelerate import Accelerator

from alignzoo import load_method
from alignzoo.contract.aggregation import Aggregation, TokenView
from alignzoo.contract.responses import ResponseBatch
from alignzoo.data.collate import TokenBatch
from alignzoo.errors import MethodError
from alignzoo.logprobs.forward import use_packing
from alignzoo.logprobs.hidden import keeping
from alignzoo.logprobs.logps import packed_logps, padded_logps
from alignzoo.objective.objective import Objective
from alignzoo.objective.terms import Aggregating, Term, Wrapping
from alignzoo.plugin import Options
from alignzoo.report import Reporter
from alignzoo.step.context import StepContext
from alignzoo.step.engine import Engine
from alignzoo.step.held_out import HeldOut
from alignzoo.testing.ranks import on_two_ranks
from alignzoo.testing.steps import Bench, Data, every_field
from alignzoo.testing.tiny import batch_of, cut, pair_rows, shifted, tiny_model

METHODS: dict[str, dict[str, Any]] = {
    "sampo": {},
    "otpo": {},
    "humanline": {"log_epsilon_p": -0.05, "log_epsilon_r": 0.05},
    "tis-dpo": {},
}


def goal(name: str, *, coupled: bool = False) -> Objective:
    aggregating = Aggregating(name, load_method("aggregation", name, **METHODS[name]), name == "otpo")
    wrappers = [Wrapping(load_method("robust", "drdpo", beta_prime=0.5), "drdpo", coupled=True)] if coupled else []
    return Objective([Term(load_method("loss", "dpo", beta=0.5), aggregation=aggregating)], wrappers)


def with_guides(batch: TokenBatch, policy: Any) -> TokenBatch:
    """The batch with log-probs under two other models."""
    with torch.no_grad():
        guide, contrast = (every_field(shifted(policy, by), batch).token_logps for by in (0.2, 0.6))
    return replace(batch, guide_tokens=guide, contrast_tokens=contrast)


def taken(name: str, size: int, controller: str = "plain", *, coupled: bool = True, data: Data | None = None) -> Any:
    """Value and gradient of two steps, on this process's ranks."""
    bench, method = Bench(data=data or Data()), load_method("geometry", controller)
    bench.setup(method)
    steps, initial = [], copy.deepcopy(bench.policy)
    for step in range(2):
        context = bench.context(goal(name, coupled=coupled), step, size=size)
        if name == "tis-dpo":
            batches = [with_guides(batch, initial) for batch in context.batches]
            context = StepContext(context.engine, batches, context.references, step)
        report = method.step(context)
        steps.append((report.value, bench.gradient()))
    return steps


def same(found: Any, expected: Any) -> None:
    for (value, gradient), (whole_value, whole) in zip(found, expected, strict=True):
        torch.testing.assert_close(value, whole_value, rtol=1e-8, atol=1e-12)
        torch.testing.assert_close(gradient, whole, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("coupled", [True, False])
@pytest.mark.parametrize("name", METHODS)
def test_a_step_does_not_depend_on_how_it_is_cut(name: str, coupled: bool) -> None:
    """1×8 = 2×4 = 8×1 = 2 ranks."""
    whole = taken(name, 8, coupled=coupled)
    assert whole[0][1].abs().max() > 0
    for size in (4, 3, 1):
        same(taken(name, size, coupled=coupled), whole)
    if coupled:
        for found in on_two_ranks(taken, name, 2, modules=[__name__]):
            same(found, whole)


@pytest.mark.parametrize("name", ["sampo", "otpo"])
def test_lists_of_responses_neither(name: str) -> None:
    whole = taken(name, 8, data=Data("ranked"))
    same(taken(name, 1, data=Data("ranked")), whole)


class Recorded(Aggregation):
    """SamPO that keeps its weights."""

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self.method = load_method("aggregation", "sampo")
        self.seen: list[torch.Tensor] = []

    def token_weights(self, tokens: TokenView) -> torch.Tensor:
        self.seen.append(self.method.token_weights(tokens))
        return self.seen[-1]

    def __call__(self, logps: Any, token_logps: Any, responses: ResponseBatch) -> torch.Tensor:
        found: torch.Tensor = self.method(logps, token_logps, responses)
        return found


def recorded() -> tuple[Recorded, Objective]:
    method = Recorded(Options())
    return method, Objective([Term(load_method("loss", "dpo"), aggregation=Aggregating("recorded", method))])


def test_sam_sees_the_same_tokens_in_both_passes() -> None:
    bench, sam = Bench(), load_method("geometry", "sam")
    bench.setup(sam)
    drawn = []
    for step in range(3):
        method, objective = recorded()
        sam.step(bench.context(objective, step, size=4))
        first, second, *again = method.seen
        assert len(again) == 2
        assert torch.equal(first, again[0])
        assert torch.equal(second, again[1])
        assert bool((first.sum(-1) < (first >= 0).sum(-1)).any())
        drawn.append(first)
    assert not any(torch.equal(a, b) for a, b in pairwise(drawn))


def test_another_step_draws_other_tokens_of_the_same_rows() -> None:
    bench = Bench()
    batches, references = bench.context(recorded()[1], 0).batches, bench.context(recorded()[1], 0).references
    drawn = []
    for seed, step in ((0, 0), (0, 1), (1, 0), (0, 0)):
        method, objective = recorded()
        engine = Engine(bench.model, every_field, objective, bench.accelerator, seed)
        StepContext(engine, batches, references, step).evaluate()
        drawn.append(method.seen[0])
    assert torch.equal(drawn[0], drawn[3])
    assert not torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_an_evaluation_always_draws_the_same() -> None:
    method, objective = recorded()
    model = tiny_model()
    engine = Engine(model, every_field, objective, Accelerator(cpu=True), 0)
    held_out = HeldOut(engine, lambda batch: every_field(shifted(model), batch), cut(pair_rows(4), 2), Reporter())
    assert held_out.evaluate(step=1) == held_out.evaluate(step=2)
    assert len(method.seen) == 4


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_hidden_states_are_those_that_predict_the_tokens(family: str) -> None:
    model, batch = tiny_model(family), batch_of(pair_rows(3))
    with keeping() as kept:
        padded_logps(model, batch)
    said = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask, output_hidden_states=True)
    last = said.hidden_states[-1].detach()
    assert kept.grid is not None
    assert not kept.grid.requires_grad
    for i, length in enumerate(batch.lengths.tolist()):
        first = int(batch.response_mask[i].nonzero()[0]) - 1
        torch.testing.assert_close(kept.grid[i, :length], last[i, first : first + length])
        assert bool((kept.grid[i, length:] == 0).all())


def test_hidden_states_of_packed_rows_are_those_of_padded_ones() -> None:
    model, batch = tiny_model(), batch_of(pair_rows(3))
    with keeping() as padded:
        padded_logps(model, batch)
    use_packing(model)
    with keeping() as packed:
        packed_logps(model, batch)
    torch.testing.assert_close(packed.grid, padded.grid, rtol=1e-5, atol=1e-7)  # llama's norms round to fp32
    with keeping(wanted=False) as nothing:
        packed_logps(model, batch)
    assert nothing.grid is None


class Wrong(Aggregation):
    def __init__(self, given: Any) -> None:
        super().__init__(Options())
        self.given = given

    def token_weights(self, tokens: TokenView) -> torch.Tensor:
        weights: torch.Tensor = self.given(tokens.responses.token_mask)
        return weights

    def __call__(self, logps: Any, token_logps: Any, responses: ResponseBatch) -> torch.Tensor:
        found: torch.Tensor = logps
        return found


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (lambda mask: mask[:, 0], r"shape \(\d+,\)"),
        (lambda mask: mask / 0, "NaN or infinity"),
        (lambda mask: mask.clone().requires_grad_(True), "a gradient"),
        (lambda mask: mask.missing, "failed in token_weights"),
        (lambda mask: 3.0, "a float"),
    ],
)
def test_weights_that_are_none_are_refused_by_name(given: Any, words: str) -> None:
    objective = Objective([Term(load_method("loss", "dpo"), aggregation=Aggregating("wrong", Wrong(given)))])
    with pytest.raises(MethodError, match=f"Wrong .*{words}"):
        Bench().context(objective, 0).evaluate()
