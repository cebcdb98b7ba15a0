"""Stacks of wrappers: every two of them are right in a step, or refused with a reason before anything loads."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import pytest
import torch

from alignzoo import list_methods, load_method
from alignzoo.contract.robust import RobustCard
from alignzoo.errors import AlignzooError, IncompatibleError
from alignzoo.objective.objective import Objective
from alignzoo.objective.terms import Term, Wrapping
from alignzoo.plan.plan import Plan
from alignzoo.plan.recipe import Layer
from alignzoo.plan.resolve import resolve
from alignzoo.plugin import Options
from alignzoo.testing.sample import sample
from alignzoo.testing.stages import AtTheWeights
from alignzoo.testing.steps import Bench, Data

WRAPPERS = {card.name: card for card in list_methods("robust") if isinstance(card, RobustCard)}
RELABELS = sorted(name for name, card in WRAPPERS.items() if card.relabels)
AGGREGATES = sorted(name for name, card in WRAPPERS.items() if card.aggregates)
close = torch.testing.assert_close


def resolved(robust: list[str], **values: Any) -> Plan | list[AlignzooError]:
    return resolve([Layer("flag", {"model": "m", "data": "d", "robust": robust, **values})])


def objective(names: list[str] | tuple[str, ...], loss: str = "dpo") -> Objective:
    wrappings = [Wrapping(load_method("robust", name), name, WRAPPERS[name].batch_coupled) for name in names]
    return Objective([Term(load_method("loss", loss))], wrappings)


PAIRS = list(permutations(sorted(WRAPPERS), 2))
ALLOWED = [pair for pair in PAIRS if isinstance(resolved(list(pair)), Plan)]


def test_two_wrappers_are_refused_where_their_facts_say_so() -> None:
    """Two that relabel, two that aggregate, wdpo around values that depend on others, anything around wdpo-winsor."""
    for inner, outer in PAIRS:
        two = {inner, outer}
        expected = two <= set(RELABELS) or two <= set(AGGREGATES) or (inner == "wdpo-winsor")
        assert ((inner, outer) not in ALLOWED) == expected, (inner, outer)
    assert len(ALLOWED) > 100


@pytest.mark.parametrize("names", [pair for pair in PAIRS if pair not in ALLOWED], ids="-".join)
def test_a_refusal_says_what_to_do(names: tuple[str, str]) -> None:
    problems = resolved(list(names))
    assert isinstance(problems, list)
    assert all(isinstance(problem, IncompatibleError) and problem.hint for problem in problems)


@pytest.mark.parametrize("names", ALLOWED, ids="-".join)
def test_two_wrappers_are_exact_however_a_step_is_cut(names: tuple[str, str]) -> None:
    """Value and gradient of a step in one micro-batch and in four; all finite."""
    needs = frozenset({"reference"}).union(
        *(WRAPPERS[n].needs | load_method("robust", n).options.needs() for n in names)
    )
    taken = []
    for size in (8, 2):
        bench = Bench(data=Data(needs=needs))
        ctx = bench.context(objective(names), 0, size=size)
        taken.append((AtTheWeights(Options()).step(ctx).value, bench.gradient()))
    (value, gradient), (other, its_gradient) = taken
    assert bool(torch.isfinite(gradient).all())
    assert float(gradient.abs().max()) > 0
    close(other, value, rtol=1e-9, atol=1e-12)
    close(its_gradient, gradient, rtol=1e-8, atol=1e-8 * float(gradient.abs().max()))


@pytest.mark.parametrize("aggregator", [name for name in AGGREGATES if name != "wdpo-winsor"])
def test_the_place_of_an_aggregator_does_not_matter(aggregator: str) -> None:
    from alignzoo.contract.responses import ResponseBatch

    responses = ResponseBatch.of_pairs(sample())
    for name in ("cdpo", "wpo", "wdpo"):
        first, last = objective([aggregator, name]), objective([name, aggregator])
        for one in (first, last):
            one.observe(responses, coupled=True)
        close(first.value(responses), last.value(responses), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("robust", "words"),
    [
        (["cdpo"], "dpo under cdpo"),
        (["drdpo"], "dpo under drdpo"),
        (["cdpo", "wpo"], "dpo under cdpo under wpo"),
        (["cdpo", "drdpo"], "dpo under cdpo, then drdpo over the step"),
        (["drdpo", "cdpo"], "dpo under cdpo, then drdpo over the step"),
        (["wpo", "wdpo-winsor"], "dpo under wpo, then wdpo-winsor over the step"),
    ],
)
def test_the_plan_says_a_stack_in_words(robust: list[str], words: str) -> None:
    plan = resolved(robust)
    assert isinstance(plan, Plan)
    assert plan.objective() == words
    mixed = resolved(robust, loss=["dpo", "sft"])
    assert isinstance(mixed, Plan)
    assert mixed.objective() == (f"({words}) + sft" if ", " in words else f"{words} + sft")


@pytest.mark.parametrize(
    ("values", "words", "hint"),
    [
        ({"robust": ["cdpo", "rdpo"]}, "cdpo and rdpo each replace the data's labels", "keep one"),
        ({"robust": ["wdpo-winsor", "wpo"]}, "takes the mean over the step, so wpo cannot wrap it", "name it last"),
        ({"robust": ["wdpo"], "loss": "aot"}, "with loss 'aot' a value depends on other pairs", "another loss"),
        (
            {"robust": ["wdpo"], "aggregation": "ld"},
            "needs log-probs that are sums or means over tokens",
            "sum or mean",
        ),
        ({"robust": ["wpo"], "aggregation": "ld"}, "log-probs that are sums or means", "sum or mean"),
        ({"robust": ["wdpo"], "loss": "tdpo1"}, "also reads reference-kl", "another loss"),
        ({"robust": ["cdpo"], "loss": "sft"}, "cdpo' wraps losses that read", "leave out --robust cdpo"),
    ],
)
def test_what_would_be_wrong_is_refused(values: dict[str, Any], words: str, hint: str) -> None:
    problems = resolve([Layer("flag", {"model": "m", "data": "d", **values})])
    assert isinstance(problems, list)
    assert any(words in problem.message and hint in str(problem.hint) for problem in problems), problems


def test_compositions_are_dpo_under_a_wrapper() -> None:
    for name in ("cdpo", "rdpo", "wpo", "drdpo", "robust"):
        plan = resolve([Layer("flag", {"model": "m", "data": "d", "loss": name})])
        assert isinstance(plan, Plan)
        assert plan.objective() == f"dpo under {'rdpo' if name == 'robust' else name}"
