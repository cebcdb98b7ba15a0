"""Steps of objectives that read the whole vocabulary, embedding gradients, safety labels or progress: exact however a
step is cut."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from accelerate import Accelerator

from alignzoo import load_method
from alignzoo.contract.card import Need, Options
from alignzoo.contract.pairs import PairBatch
from alignzoo.contract.responses import ResponseBatch
from alignzoo.distributed.sharding import shard
from alignzoo.interfaces import PreferenceLoss
from alignzoo.objective.objective import Objective
from alignzoo.objective.terms import Term, Wrapping
from alignzoo.objective.views import relative_to
from alignzoo.reference.frozen import Reference
from alignzoo.report import Reporter
from alignzoo.step.context import StepContext
from alignzoo.step.engine import Engine
from alignzoo.step.held_out import HeldOut
from alignzoo.testing.ranks import on_two_ranks
from alignzoo.testing.steps import STEPS, Bench, Data, every_field, gradients
from alignzoo.testing.tiny import batch_of, cut, pair_rows, shifted, tiny_model


def given(value: torch.Tensor | None) -> torch.Tensor:
    assert value is not None
    return value


class Pairwise(PreferenceLoss):
    """A loss of pairs that reads one of the statistics of both sides."""

    def __init__(self, field: str) -> None:
        super().__init__(Options())
        self.field = field

    def __call__(self, pairs: PairBatch) -> torch.Tensor:
        prefix, rest = ("ref_", self.field.removeprefix("ref_")) if self.field.startswith("ref_") else ("", self.field)
        chosen = given(getattr(pairs, f"{prefix}chosen_{rest}"))
        rejected = given(getattr(pairs, f"{prefix}rejected_{rest}"))
        margin = pairs.chosen_logps - pairs.rejected_logps
        return torch.nn.functional.softplus(-0.1 * margin * (1 + chosen)) + 0.05 * rejected * (1 + pairs.progress)

    def rewards(self, pairs: PairBatch) -> Any:
        return pairs.chosen_logps, pairs.rejected_logps


class Each(PreferenceLoss):
    """The same of single responses."""

    def __init__(self, field: str) -> None:
        super().__init__(Options())
        self.field = field

    def __call__(self, responses: ResponseBatch) -> torch.Tensor:
        value = given(getattr(responses, self.field))
        return -0.1 * responses.logps * (1 + value) + 0.05 * value * (1 + responses.progress)

    def rewards(self, responses: ResponseBatch) -> Any:
        return responses.logps


FIELDS: dict[str, frozenset[Need]] = {
    "kls": frozenset({"reference-kl"}),
    "ref_entropies": frozenset({"reference-entropy"}),
    "collisions": frozenset({"collisions"}),
    "embedding_norms": frozenset({"embedding-gradients"}),
    "safe": frozenset({"safety"}),
}


def goal(field: str, shape: str, coupled: bool) -> tuple[Objective, Data]:
    loss: Any = Each(field) if shape == "unpaired" else Pairwise(field)
    term = Term(loss, "each", "responses" if shape == "unpaired" else "pairs")
    drdpo = Wrapping(load_method("robust", "drdpo", beta_prime=0.5), "drdpo", coupled=True)
    return Objective([term], [drdpo] if coupled else []), Data(shape, needs=FIELDS[field])  # type: ignore[arg-type]


def taken(
    field: str, shape: str, coupled: bool, size: int, *, controller: str = "plain", **how: Any
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Value and gradient of two steps, on this process's ranks."""
    objective, data = goal(field, shape, coupled)
    bench, method = Bench(data=data, **how), load_method("geometry", controller)
    bench.setup(method)
    steps = []
    for step in range(2):
        report = method.step(bench.context(objective, step, size=size))
        steps.append((report.value, bench.gradient()))
    return steps


def same(found: Any, expected: Any) -> None:
    for (value, gradient), (whole_value, whole) in zip(found, expected, strict=True):
        torch.testing.assert_close(value, whole_value, rtol=1e-6, atol=1e-9)  # llama's norms round to fp32
        torch.testing.assert_close(gradient, whole, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("shape", ["pairs", "unpaired"])
@pytest.mark.parametrize("coupled", [False, True])
@pytest.mark.parametrize("field", FIELDS)
def test_a_step_does_not_depend_on_how_it_is_cut(field: str, coupled: bool, shape: str) -> None:
    whole = taken(field, shape, coupled, 8)
    assert whole[0][1].abs().max() > 0
    for size in (4, 3, 1):
        same(taken(field, shape, coupled, size), whole)
    for found in on_two_ranks(taken, field, shape, coupled, 2, modules=[__name__]):
        same(found, whole)


@pytest.mark.parametrize("field", FIELDS)
def test_under_an_adapter_and_a_perturbation(field: str) -> None:
    whole = taken(field, "pairs", False, 8, adapter=True, controller="sam")
    same(taken(field, "pairs", False, 2, adapter=True, controller="sam"), whole)
    for found in on_two_ranks(adapted, field, modules=[__name__]):
        same(found, whole)


def adapted(field: str) -> Any:
    return taken(field, "pairs", False, 2, adapter=True, controller="sam")


@pytest.mark.parametrize("field", ["kls", "ref_entropies", "collisions"])
def test_on_sharded_weights(field: str) -> None:
    whole = taken(field, "pairs", True, 8)
    for found in on_two_ranks(sharded, field, modules=[__name__]):
        same(found, whole)


def sharded(field: str) -> Any:
    return taken(field, "pairs", True, 2, sharded=True)


def of_sharded_reference() -> tuple[torch.Tensor, ...]:
    """KL and gradient of a step with a reference that is a sharded snapshot, or a whole one, of another model."""
    found = []
    for wrap in (shard, lambda model: model):
        policy = tiny_model(dtype=torch.float32)
        ask = Engine(policy, every_field, Objective(Pairwise("kls")), Accelerator(cpu=True), 0, needs=FIELDS["kls"])
        reference = Reference(shifted(policy), every_field, wrap, ask.statistics.of_reference())
        model = shard(policy)
        engine = Engine(model, every_field, ask.objective, ask.accelerator, 0, needs=FIELDS["kls"])
        batches = cut(pair_rows(2, seed=ask.rank), 1)
        context = StepContext(engine, batches, [reference(batch) for batch in batches], 0)
        found.append(given(context.evaluate().responses.kls))
        context.backward()
        found.append(torch.cat([whole.full_tensor().flatten() for whole in gradients(model).values()]))  # type: ignore[operator]
    return tuple(found)


def test_a_sharded_reference_gives_what_a_whole_one_does() -> None:
    for kls, gradient, whole_kls, whole_gradient in on_two_ranks(of_sharded_reference, modules=[__name__]):
        assert whole_kls.min() > 1e-3
        torch.testing.assert_close(kls, whole_kls)
        torch.testing.assert_close(gradient, whole_gradient)


@pytest.mark.parametrize("field", FIELDS)
def test_an_evaluation_is_the_objective_of_all_rows(field: str) -> None:
    """In any batches, at its own share of the run, with the same reference, and twice the same."""
    objective, data = goal(field, "pairs", True)
    bench = Bench(data=data)
    context = bench.context(objective, 4, size=2)
    expected = float(context.evaluate().value)
    found = []
    for size in (2, 3, 8):
        batches = bench.context(objective, 4, size=size).batches
        asked: list[int] = []

        def reference(batch: Any, asked: list[int] = asked, cuts: Any = batches) -> ResponseBatch:
            asked.append(len(batch.sizes))
            place = next(i for i, other in enumerate(cuts) if torch.equal(other.row_ids, batch.row_ids))
            of_step = bench.context(objective, 4, size=max(len(b.sizes) for b in cuts)).references[place]
            assert of_step is not None
            return of_step

        held_out = HeldOut(context.engine, reference, batches, Reporter())
        found += [held_out.evaluate(step=4)["eval/loss"] for _ in range(2)]
        assert len(asked) == (2 if field == "kls" else 1) * len(batches), "what a reference says of all is not kept"
    assert found == pytest.approx([expected] * 6, rel=1e-6)


def test_progress_is_the_share_of_steps_taken() -> None:
    objective, data = goal("safe", "pairs", False)
    bench = Bench(data=data)
    assert bench.context(objective, 0).evaluate().responses.progress == 0.0
    assert bench.context(objective, 3, size=2).backward().responses.progress == 3 / STEPS
    coupled, _ = goal("safe", "pairs", True)
    assert bench.context(coupled, 3, size=2).backward().responses.progress == 3 / STEPS


def test_safety_labels_are_those_of_the_rows_and_only_where_they_are_read() -> None:
    objective, data = goal("safe", "pairs", False)
    rows = data.rows(0)
    found = Bench(data=data).context(objective, 0, size=3).evaluate().responses
    assert given(found.safe).tolist() == [float(flag) for row in rows for flag in row["safe"]]
    plain = Bench().context(Objective(load_method("loss", "dpo")), 0)
    plain.batches = [batch_of(rows)]
    assert (
        plain.engine.completed(every_field(plain.engine.model, plain.batches[0]), plain.batches[0], None, 0).safe
        is None
    )


def test_relative_to_an_anchor_only_log_probs_change() -> None:
    objective, _ = goal("kls", "pairs", False)
    with torch.no_grad():
        found = Bench(data=Data(needs=frozenset({"reference-kl", "reference-entropy", "collisions"}))).context(
            objective, 0
        )
        responses = found._passes.forward(0)
    relative = relative_to(responses, responses)
    assert torch.equal(relative.logps, torch.zeros_like(responses.logps))
    assert torch.equal(given(relative.ref_logps), torch.zeros_like(responses.logps))
    for name in ("kls", "ref_entropies", "collisions"):
        assert torch.equal(given(getattr(relative, name)), given(getattr(responses, name)))
