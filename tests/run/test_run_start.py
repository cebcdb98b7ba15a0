"""Before the first step nothing is computed twice: the evaluation reads the reference's table where the policy still is
the reference, and the reference takes the rows that packing was tried on."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from heard import Heard
from run_helpers import MakeModel, Train

from alignzoo.base.cache import cache_root
from alignzoo.distributed.process import alone
from alignzoo.plan.recipe import Layer, flatten
from alignzoo.plan.resolve import require, resolve
from alignzoo.reference import compute
from alignzoo.session.session import Session
from alignzoo.step.held_out import HeldOut

Open = Callable[..., Session]


@pytest.fixture
def opened(
    words: dict[str, Any], make_model: MakeModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Session]:
    """Sessions on a tiny model that share a cache of their own."""
    monkeypatch.setenv("ALIGNZOO_CACHE", str(tmp_path / "cache"))

    def make(*, report: Heard | None = None, **given: Any) -> Session:
        dashed = {name.replace("_", "-"): value for name, value in given.items()}
        recipe = {**words, "model": str(make_model()), "probe.share": 0, **dashed}
        recipe = {name: value for name, value in recipe.items() if value is not None}
        plan = require(resolve([Layer("python", flatten(recipe, "the test"))]))
        return Session(plan, alone("the test"), report or Heard())

    return make


@contextmanager
def passes(session: Session) -> Iterator[list[int]]:
    """The tokens of each forward pass of the policy."""
    seen: list[int] = []
    embeddings = session.policy.get_input_embeddings()
    handle = embeddings.register_forward_hook(lambda _module, _inputs, output: seen.append(output.shape[:2].numel()))
    try:
        yield seen
    finally:
        handle.remove()


def ready(session: Session) -> HeldOut:
    """The session's evaluation, with its reference computed."""
    assert session.held_out is not None
    return session.held_out


def computed(session: Session, step: int = 0) -> dict[str, float]:
    """The figures by passes of the policy."""
    batches, apart = session.held_out_batches, session.parts.apart
    return HeldOut(session.engine, session.reference, batches, session.report, apart=apart).evaluate(step=step)


@pytest.mark.parametrize(
    "given",
    [
        {"loss": "dpo"},
        {"loss": "kto"},
        {"loss": "dpo", "robust": "drdpo"},
        {"loss": "dpo", "aggregation": "ld"},
        {"loss": "dpo", "aggregation": "humanline"},
        {"loss": "dpo", "packing": False},
        {"loss": "dpo", "precision": "bf16"},
        {"loss": "dpo", "lora.r": 4},
        {"loss": "dpo", "lora.r": 4, "precision": "bf16"},
        {"loss": "dpo", "geometry": "ema"},
    ],
    ids=lambda given: " ".join(map(str, given.values())),
)
def test_the_first_evaluation_is_of_the_reference_table(given: dict[str, Any], opened: Open) -> None:
    session = opened(**given)
    held_out = ready(session)
    with passes(session) as seen:
        found = held_out.evaluate()
    assert seen == []
    expected = computed(session)
    assert found.keys() == expected.keys()
    near = 2e-2 if given.get("precision") == "bf16" else 1e-5
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=near, abs=near), name
    if "eval/rewards/margins" in found and given["loss"] == "dpo":
        assert found["eval/rewards/margins"] == 0


@pytest.mark.parametrize(
    "given",
    [
        {"loss": "simpo"},
        {"loss": "dpo", "robust": "wpo"},
        {"loss": "dpo", "robust": "wdpo"},
        {"loss": "dpo", "aggregation": "otpo"},
        {"loss": "dpo", "reference_cache": False},
        {"loss": "dpo", "geometry": "tr-dpo"},
    ],
    ids=lambda given: " ".join(map(str, given.values())),
)
def test_what_is_not_in_a_table_is_computed(given: dict[str, Any], opened: Open) -> None:
    session = opened(**given)
    held_out = ready(session)
    with passes(session) as seen:
        found = held_out.evaluate()
    assert len(seen) >= len(session.held_out_batches)
    assert found == computed(session)


def test_after_a_step_the_policy_is_computed(opened: Open) -> None:
    session = opened(loss="dpo")
    before = ready(session).evaluate()
    with torch.no_grad():
        for weight in session.policy.parameters():
            weight.mul_(1.01)
    with passes(session) as seen:
        after = ready(session).evaluate(step=1)
    assert len(seen) == len(session.held_out_batches)
    assert after == computed(session, step=1) != before


def test_a_model_that_was_trained_elsewhere_is_computed(opened: Open, train: Train) -> None:
    trained = train(model=opened().settings.model, lr=1e-2).path / "model"
    session = opened(loss="dpo")
    _ = session.reference
    session.become(trained)
    assert ready(session).evaluate() == computed(session)
    assert abs(ready(session).evaluate()["eval/rewards/margins"]) > 1e-4


def table_of(session: Session) -> torch.Tensor:
    assert session.reference is not None
    found = [session.reference(batch) for step in range(session.steps) for batch in session.batches(step)]
    return torch.cat([responses.logps for responses in (*found, *map(session.reference, session.held_out_batches))])


def test_rows_that_packing_was_tried_on_are_not_computed_again(opened: Open) -> None:
    session = opened(report=(heard := Heard()))
    sample = session.choice.sample
    assert sample is not None
    assert sample.responses is not None
    assert sample.batch.rows == 2
    _ = session.model
    with passes(session) as seen:
        found = table_of(session)
    tokens = sum(int(source.lengths.sum()) for source in session._sources())
    assert sample.batch.pack is not None
    assert sum(seen) == tokens - sample.batch.pack.input_ids.numel()
    rows = sum(len(source.rows) for source in session._sources())
    assert any(note.startswith(f"reference log-probs: {rows} pairs computed, 0 from") for note in heard.notes)
    again = opened(report=(heard := Heard()))
    with passes(again) as seen:
        assert torch.equal(table_of(again), found)
    assert any(note.startswith(f"reference log-probs: 0 pairs computed, {rows} from") for note in heard.notes)


@pytest.mark.parametrize("aggregation", [None, "ld"])
@pytest.mark.parametrize("at", [None, 0, 2])
def test_a_run_killed_between_trial_and_reference_gets_the_same_numbers(
    at: int | None, aggregation: str | None, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``at``: batches of the reference that were written."""
    given = {"tokens_per_micro_batch": 200, "micro_batch_size": None, "max_steps": 1, "aggregation": aggregation}
    expected = table_of(opened(**given))
    shutil.rmtree(cache_root())
    killed = opened(**given)
    _ = killed.model
    if at is not None:
        monkeypatch.setattr(compute, "SECONDS_PER_SHARD", 0)
        cut_short(killed, at, monkeypatch)
    assert any((cache_root() / "trials").iterdir())
    restarted = opened(**given)
    sample = restarted.choice.sample
    assert sample is not None
    assert sample.responses is None
    assert torch.equal(table_of(restarted), expected)


def cut_short(session: Session, at: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compute some batches of the reference, and leave behind only what was written before."""
    done, values = list[int](), compute.Filling._values

    with monkeypatch.context() as patch:

        def counted(self: Any, *given: Any) -> Any:
            if len(done) == at:
                patch.setattr(compute.Filling, "_keep", lambda *_: None)
                raise KeyboardInterrupt
            done.append(1)
            return values(self, *given)

        patch.setattr(compute.Filling, "_values", counted)
        with pytest.raises(KeyboardInterrupt):
            _ = session.reference


@pytest.mark.parametrize("given", [{"lora.r": 4}, {"precision": "bf16"}, {"packing": False}])
def test_a_trial_that_computes_otherwise_gives_no_numbers(given: dict[str, Any], opened: Open) -> None:
    session = opened(**given)
    assert session.choice.sample is None
    with passes(session) as seen:
        _ = session.model, seen.clear(), table_of(session)
    assert sum(seen) >= sum(int(source.lengths.sum()) for source in session._sources())
