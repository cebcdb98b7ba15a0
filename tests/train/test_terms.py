"""Objectives over responses of every shape, and of several terms: exact however a step is cut."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from golden import golden_responses
from steps import objective

from alignzoo import load_method
from alignzoo.contract.aggregation import Aggregation
from alignzoo.contract.responses import ResponseBatch
from alignzoo.errors import MethodError
from alignzoo.interfaces import PreferenceLoss, RobustWrapper
from alignzoo.objective.objective import Objective
from alignzoo.objective.terms import Aggregating, Term, Wrapping
from alignzoo.plugin import Options
from alignzoo.testing.ranks import on_two_ranks
from alignzoo.testing.steps import Bench, Data, context, gradients
from alignzoo.testing.tiny import cut, pair_rows, tiny_model

KTO = Data("unpaired", mismatched=True)
RANKED = Data("ranked")
UNPAIRED = Data("unpaired")
PAIRS = Data()


def term(name: str, weight: float = 1.0, **options: Any) -> Term:
    """A built-in loss as a term, as its card says."""
    from alignzoo.plugin.registry import registry

    card: Any = registry().find("loss", name)
    loss = load_method("loss", name, **options)
    return Term(loss, name, card.reads, weight, coupled=card.batch_coupled or loss.options.couples())


def goal(case: str) -> tuple[Objective, Data]:
    drdpo = Wrapping(load_method("robust", "drdpo", beta_prime=0.5), "drdpo", coupled=True)
    mixture = [term("dpo"), term("sft", 0.3)]
    return {
        "kto": lambda: (Objective([term("kto")]), KTO),
        "kto of pairs": lambda: (Objective([term("kto", beta=0.5)]), Data(mismatched=True)),
        "kto under drdpo": lambda: (Objective([term("kto", beta=0.5)], [drdpo]), KTO),
        "kto beside sft": lambda: (Objective([term("kto"), term("sft", 0.1)]), KTO),
        "pl-dpo": lambda: (Objective([term("pl-dpo")]), RANKED),
        "pl-dpo under drdpo": lambda: (Objective([term("pl-dpo")], [drdpo]), RANKED),
        "dpo of lists": lambda: (Objective([term("dpo")]), RANKED),
        "dpo of lists beside sft": lambda: (Objective(mixture), RANKED),
        "dpo beside sft": lambda: (Objective(mixture), PAIRS),
        "dpo under drdpo beside sft": lambda: (Objective(mixture, [drdpo]), PAIRS),
        "dpo beside sft of tokens": lambda: (Objective([term("dpo"), term("sft", 0.3, mean="tokens")]), PAIRS),
        "sft": lambda: (Objective([term("sft")]), UNPAIRED),
        "sft of tokens": lambda: (Objective([term("sft", mean="tokens")]), UNPAIRED),
    }[case]()


CASES = (
    "kto", "kto of pairs", "kto under drdpo", "kto beside sft", "pl-dpo", "pl-dpo under drdpo", "dpo of lists",
    "dpo of lists beside sft", "dpo beside sft", "dpo under drdpo beside sft", "dpo beside sft of tokens", "sft",
    "sft of tokens",
)  # fmt: skip


def taken(case: str, size: int, controller: str = "plain", **options: Any) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Value and gradient of two steps, on this process's ranks."""
    objective_of_case, data = goal(case)
    bench, method = Bench(data=data), load_method("geometry", controller, **options)
    bench.setup(method)
    steps = []
    for step in range(2):
        report = method.step(bench.context(objective_of_case, step, size=size))
        steps.append((report.value, bench.gradient()))
    return steps


def same(found: Any, expected: Any) -> None:
    for (value, gradient), (whole_value, whole) in zip(found, expected, strict=True):
        torch.testing.assert_close(value, whole_value, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(gradient, whole, rtol=1e-8, atol=1e-11)


@pytest.mark.parametrize("case", CASES)
def test_a_step_does_not_depend_on_how_it_is_cut(case: str) -> None:
    whole = taken(case, 8)
    assert whole[0][1].abs().max() > 0
    for size in (4, 3, 1):
        same(taken(case, size), whole)
    for found in on_two_ranks(taken, case, 2, modules=[__name__]):
        same(found, whole)


SHAPO = {"select": "random", "interval": 1, "rho": 0.1}


def test_kto_under_drdpo_with_shapo_is_exact_however_a_step_is_cut() -> None:
    """1×8 = 4×2 = 2 ranks."""
    whole = taken("kto under drdpo", 8, "shapo-token", **SHAPO)
    plain = taken("kto under drdpo", 8)
    assert not torch.allclose(whole[0][1], plain[0][1], rtol=1e-6), "the perturbation does something"
    same(taken("kto under drdpo", 2, "shapo-token", **SHAPO), whole)
    for found in on_two_ranks(taken_by_shapo, modules=[__name__]):
        same(found, whole)


def taken_by_shapo() -> Any:
    return taken("kto under drdpo", 2, "shapo-token", **SHAPO)


@pytest.mark.parametrize("size", [8, 2])
def test_a_mixture_is_the_weighted_sum_of_both_gradients(size: int) -> None:
    """Through a model that is float64 throughout; llama's norms round to fp32."""
    model = tiny_model("gpt2")

    def gradients_of(terms: list[Term]) -> dict[str, torch.Tensor]:
        context(model, cut(pair_rows(8, seed=5), size), Objective(terms)).backward()
        return gradients(model)

    both, dpo = gradients_of([term("dpo"), term("sft", 0.3)]), gradients_of([term("dpo")])
    for name, sft in gradients_of([term("sft")]).items():
        torch.testing.assert_close(both[name], dpo[name] + 0.3 * sft, rtol=1e-8, atol=1e-11)


def test_wrappers_go_around_the_first_term_alone() -> None:
    given = golden_responses()
    terms, drdpo = [term("dpo"), term("sft", 0.3)], load_method("robust", "drdpo")
    alone = Objective([term("dpo")], [drdpo]).value(given) + 0.3 * Objective([term("sft")]).value(given)
    torch.testing.assert_close(Objective(terms, [drdpo]).value(given), alone)
    assert Objective(terms, [drdpo]).values(given).shape == (4,)


def test_each_term_of_a_mixture_logs_its_own_value() -> None:
    given = golden_responses()
    found = Objective([term("dpo"), term("sft", 0.3)]).metrics(given)
    assert found["loss/dpo/value"] == pytest.approx(float(Objective([term("dpo")]).value(given)))
    assert found["loss/sft/value"] == pytest.approx((12 + 30.5 + 8.25 + 20) / 4)
    assert Objective([term("dpo")]).metrics(given) == {}


@pytest.mark.parametrize(
    "case", ["pl-dpo", "dpo of lists", "kto of pairs", "dpo beside sft", "dpo of lists beside sft"]
)
@pytest.mark.parametrize("size", [8, 3])
def test_only_some_rows_is_a_step_of_those_alone(case: str, size: int) -> None:
    goal_of_case, data = goal(case)
    kept = torch.tensor([True, False, False, True, True, False, False, True])
    bench = Bench(data=data)
    some = bench.context(goal_of_case, 0, size=size).only(kept)
    report = some.backward()
    found = bench.gradient()
    assert report.row_ids.tolist() == [0, 3, 4, 7]
    assert report.responses.prompt.unique().tolist() == [0, 1, 2, 3]
    whole = bench.context(goal_of_case, 0).evaluate()
    torch.testing.assert_close(report.value, goal_of_case.value(whole.responses.of_prompts(kept)))
    responses = bench.context(goal_of_case, 0)._passes.forward(0)
    goal_of_case.value(responses.of_prompts(kept)).backward()
    torch.testing.assert_close(found, bench.gradient(), rtol=1e-8, atol=1e-11)


def some_of_a_step(case: str) -> tuple[torch.Tensor, torch.Tensor, list[int]]:
    goal_of_case, data = goal(case)
    bench = Bench(data=data)
    kept = torch.tensor([True, False, False, True, True, False, False, False])
    report = bench.context(goal_of_case, 0, size=2).only(kept).backward()
    return report.value, bench.gradient(), report.row_ids.tolist()


@pytest.mark.parametrize("case", ["pl-dpo", "dpo of lists beside sft", "kto under drdpo"])
def test_only_some_rows_of_ranks_with_unequal_numbers_of_responses(case: str) -> None:
    value, gradient, ids = some_of_a_step(case)
    for found_value, found, found_ids in on_two_ranks(some_of_a_step, case, modules=[__name__]):
        assert found_ids == ids == [0, 3, 4]
        torch.testing.assert_close(found_value, value, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(found, gradient, rtol=1e-8, atol=1e-11)


def report_of_a_step() -> ResponseBatch:
    return Bench(data=RANKED).context(goal("pl-dpo")[0], 0, size=2).evaluate().responses


def test_ranks_with_unequal_numbers_of_responses_report_the_whole_step() -> None:
    whole = report_of_a_step()
    for found in on_two_ranks(report_of_a_step, modules=[__name__]):
        for name, value in whole.present().items():
            torch.testing.assert_close(getattr(found, name), value, rtol=1e-9, atol=1e-12)


def test_values_by_row_are_means_over_a_rows_values() -> None:
    bench = Bench(data=RANKED)
    dpo = Objective([term("dpo")])
    report = bench.context(dpo, 0).evaluate()
    by_row = bench.context(dpo, 0).by_row(report)
    for row in range(8):
        alone = report.responses.of_prompts(torch.arange(8) == row)
        torch.testing.assert_close(by_row[row], dpo.values(alone).mean())


class Halved(Aggregation):
    """Half of the sum, for policy and reference."""

    def __call__(self, logps: Any, token_logps: Any, responses: ResponseBatch) -> torch.Tensor:
        assert token_logps is None or token_logps.shape[0] == len(responses)
        return logps / 2


def test_an_aggregation_changes_policy_and_reference_before_the_loss() -> None:
    seen: list[Any] = []

    class Seeing(PreferenceLoss):
        def __call__(self, pairs: Any) -> torch.Tensor:
            seen.append(pairs)
            return torch.nn.functional.softplus(pairs.log_ratios()[1] - pairs.log_ratios()[0])

    given = golden_responses()
    aggregated = Objective([Term(Seeing(Options()), aggregation=Aggregating("halved", Halved(Options())))])
    _, cotangents = aggregated.cotangents(given)
    assert seen[0].aggregation == "halved"
    assert torch.equal(seen[0].chosen_logps, given.logps[0::2] / 2)
    assert torch.equal(seen[0].ref_chosen_logps, given.ref_logps[0::2] / 2)  # type: ignore[index]
    _, plain = Objective(load_method("loss", "dpo", beta=0.5)).cotangents(given)
    torch.testing.assert_close(cotangents.logps, plain.logps)
    assert aggregated.methods()["aggregation"] == [aggregated.terms[0].aggregation.method]  # type: ignore[union-attr]


def test_an_aggregation_that_reduces_is_named() -> None:
    class Lame(Halved):
        def __call__(self, logps: Any, token_logps: Any, responses: ResponseBatch) -> torch.Tensor:
            return logps.mean()

    lame = Objective([Term(load_method("loss", "dpo"), aggregation=Aggregating("lame", Lame(Options())))])
    words = r"^Lame returned shape \(\); an aggregation returns one log-prob per response"
    with pytest.raises(MethodError, match=words):
        lame.value(golden_responses())


class Watching(PreferenceLoss):
    """Counts its steps, and says so."""

    steps = 0

    def __call__(self, pairs: Any) -> torch.Tensor:
        return (1 + self.steps) * torch.nn.functional.softplus(pairs.rejected_logps - pairs.chosen_logps)

    def observe(self, pairs: Any) -> None:
        assert len(pairs) == 8
        self.steps += 1

    def metrics(self, pairs: Any) -> dict[str, Any]:
        return {"steps": self.steps, "pairs": torch.tensor(float(len(pairs)))}


@pytest.mark.parametrize("size", [8, 2])
def test_running_statistics_without_coupling_take_no_extra_forward_and_move_after_the_step(size: int) -> None:
    from alignzoo.testing.sweep import Forwards

    watching, forwards = Watching(Options()), Forwards()
    whole, bench = Objective(watching), Bench()
    report = bench.context(whole, 0, size=size, forward=forwards).backward()
    assert watching.steps == 0
    assert forwards.count == 8 // size
    whole.observe(report.responses, coupled=False)
    assert watching.steps == 1
    assert whole.metrics(report.responses) == {"loss/loss/steps": 1.0, "loss/loss/pairs": 8.0}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (None, "returned None"),
        ({"a": "b"}, "returned a str as 'a'"),
        ({3: 1.0}, "returned an int as a name"),
        ({"a": torch.zeros(2)}, r"returned shape \(2,\) as 'a'"),
    ],
)
def test_metrics_that_are_none_are_said_of_the_method(given: Any, words: str) -> None:
    class Lame(Watching):
        def metrics(self, pairs: Any) -> Any:
            return given

    with pytest.raises(MethodError, match=rf"^Lame {words}; metrics\(\) returns a mapping"):
        Objective(Lame(Options())).metrics(golden_responses())


class LogsItsLosses(RobustWrapper):
    def metrics(self, losses: torch.Tensor, pairs: Any) -> dict[str, Any]:
        return {"largest": losses.max()}


def test_wrappers_log_under_their_name() -> None:
    given = golden_responses()
    whole = Objective([term("dpo")], [Wrapping(LogsItsLosses(Options()), "logs")])
    assert whole.metrics(given) == {"robust/logs/largest": pytest.approx(float(objective().values(given).max()))}


def test_a_step_without_a_value_of_a_term_counts_as_zero() -> None:
    """Only undesirable responses: there is nothing to imitate."""
    given = golden_responses().rows(slice(1, None, 2))
    given = ResponseBatch(logps=given.logps, lengths=given.lengths, prompt=torch.arange(4), labels=given.labels)
    value, cotangents = Objective([term("sft")], [load_method("robust", "drdpo")]).cotangents(given)
    assert float(value) == 0
    assert not cotangents.logps.any()
