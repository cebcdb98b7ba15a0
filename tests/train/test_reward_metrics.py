"""Figures of a step, and of held-out rows, whatever the loss reads."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from golden import golden_pairs, golden_responses

from alignzoo import load_method
from alignzoo.contract.responses import ResponseBatch
from alignzoo.objective.objective import Objective
from alignzoo.objective.terms import Term
from alignzoo.report import Reporter
from alignzoo.step.held_out import HeldOut
from alignzoo.step.metrics import non_finite, reward_metrics, weight_metrics
from alignzoo.testing.steps import Bench, Data

PAIR_FIGURES = {
    "rewards/chosen", "rewards/rejected", "rewards/margins", "rewards/accuracies", "logps/chosen", "logps/rejected",
}  # fmt: skip


def term(name: str, reads: Any, weight: float = 1.0) -> Term:
    return Term(load_method("loss", name), name, reads, weight)


CASES: dict[str, tuple[list[Term], Data, set[str]]] = {
    "dpo": ([term("dpo", "pairs")], Data(), PAIR_FIGURES),
    "dpo of lists": ([term("dpo", "pairs")], Data("ranked"), PAIR_FIGURES),
    "pl-dpo": ([term("pl-dpo", "lists")], Data("ranked"), PAIR_FIGURES),
    "kto of pairs": ([term("kto", "responses")], Data(mismatched=True), PAIR_FIGURES | {"loss/kto/kl"}),
    "kto": (
        [term("kto", "responses")],
        Data("unpaired", mismatched=True),
        PAIR_FIGURES - {"rewards/accuracies"} | {"loss/kto/kl"},
    ),
    "sft": ([term("sft", "chosen")], Data("unpaired"), {"rewards/chosen", "logps/chosen", "logps/rejected"}),
    "dpo beside sft": (
        [term("dpo", "pairs"), term("sft", "chosen", 0.3)],
        Data(),
        PAIR_FIGURES | {"loss/dpo/value", "loss/sft/value"},
    ),
}


def bench_of(case: str) -> tuple[Objective, Bench, set[str]]:
    terms, data, names = CASES[case]
    return Objective(terms), Bench(data=data), names


@pytest.mark.parametrize("case", CASES)
def test_what_a_step_logs(case: str) -> None:
    goal, bench, names = bench_of(case)
    responses = bench.context(goal, 0).evaluate().responses
    found = reward_metrics(goal.preference, responses) | goal.metrics(responses)
    assert found.keys() == names
    for prefix in ("rewards", "logps"):
        own = responses.of_role(0)
        values = goal.preference.rewards(goal.preference.view(responses)) if prefix == "rewards" else own.logps
        if case == "kto":
            desirable = values[own.labels > 0].mean()  # type: ignore[operator]
            assert found[f"{prefix}/chosen"] == pytest.approx(float(desirable))
        elif case == "pl-dpo":
            first, second = own.pair_places()
            assert found[f"{prefix}/chosen"] == pytest.approx(float(values[first].mean()))
            assert found[f"{prefix}/rejected"] == pytest.approx(float(values[second].mean()))


@pytest.mark.parametrize("case", CASES)
def test_held_out_figures_are_those_of_all_rows_at_once(case: str) -> None:
    goal, bench, names = bench_of(case)
    context = bench.context(goal, 0, size=3)
    in_order = iter(context.references)
    held_out = HeldOut(context.engine, lambda batch: next(in_order), context.batches, Reporter())  # type: ignore[arg-type, return-value]
    figures = held_out.evaluate()
    assert figures.keys() == {"eval/loss"} | {f"eval/{name}" for name in names}
    whole = bench.context(goal, 0).evaluate()
    assert figures["eval/loss"] == pytest.approx(float(whole.value), rel=1e-9)
    for name, value in reward_metrics(goal.preference, whole.responses).items():
        assert figures[f"eval/{name}"] == pytest.approx(value, rel=1e-7), name


def test_margins_of_unpaired_responses_are_the_difference_of_means() -> None:
    found = reward_metrics(term("kto", "responses"), golden_responses_without_order())
    chosen, rejected = load_method("loss", "dpo").rewards(golden_pairs())
    assert found["rewards/margins"] == pytest.approx(float(chosen.mean() - rejected.mean()))
    assert found["rewards/chosen"] == pytest.approx(float(chosen.mean()))
    assert "rewards/accuracies" not in found


def golden_responses_without_order() -> ResponseBatch:
    pairs = golden_responses()
    return ResponseBatch(
        logps=pairs.logps,
        lengths=pairs.lengths,
        prompt=torch.arange(8),
        ref_logps=pairs.ref_logps,
        labels=pairs.labels,
        ranks=torch.full((8,), -1),
    )


def test_of_desirable_responses_alone_there_is_no_margin() -> None:
    given = golden_responses_without_order().rows(slice(0, None, 2))
    found = reward_metrics(term("kto", "responses"), given)
    assert found.keys() == {"rewards/chosen", "logps/chosen"}


def test_a_step_without_a_response_to_imitate_has_no_figures_of_one() -> None:
    """Figures that are not a number would make ``metrics.jsonl`` no JSON."""
    given = golden_responses_without_order().rows(slice(1, None, 2))
    assert bool((given.labels == -1).all())  # type: ignore[union-attr]
    assert reward_metrics(term("sft", "chosen"), given) == {
        "logps/rejected": pytest.approx(float(given.logps.mean())),
    }
    robust = Objective([term("sft", "chosen")], [load_method("robust", "drdpo")])
    assert float(robust.value(given)) == 0
    assert weight_metrics(robust, given) == {}


def test_rows_with_a_number_that_is_not_finite_are_named_once() -> None:
    given = golden_responses()
    given.logps[2:4] = float("nan")
    given.ref_logps[7] = float("inf")  # type: ignore[index]
    assert non_finite(given, torch.tensor([40, 41, 42, 43])) == [41, 43]
