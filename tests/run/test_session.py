"""The session: everything once and in a safe order, a source of batches that another can stand in for, no second
assembly of a run."""

from __future__ import annotations

import ast
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from run_helpers import MakeModel, Train

import alignzoo
from alignzoo.distributed.process import alone
from alignzoo.errors import DataError, UsageError
from alignzoo.plan.recipe import Layer, flatten
from alignzoo.plan.resolve import require, resolve
from alignzoo.report import Reporter
from alignzoo.session import inputs
from alignzoo.session.session import Session
from alignzoo.train.begin import begin

OpenSession = Callable[..., Session]
ROOT = Path(__file__).parents[2]


@pytest.fixture
def open_session(words: dict[str, Any], make_model: MakeModel) -> OpenSession:
    """A session on the run's words with a tiny model, with more or other ones."""

    def make(uses: Sequence[str] = ("train", "held_out"), **given: Any) -> Session:
        dashed = {name.replace("_", "-"): value for name, value in given.items()}
        layer = Layer("python", flatten({**words, "model": str(make_model()), **dashed}, "the test"))
        return Session(require(resolve([layer], distributed="none")), alone("the test"), Reporter(), uses=uses)

    return make


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the session loads, in order."""
    seen: list[str] = []
    for name in ("find_model", "load_config", "tokenizer_of", "divide", "policy_of", "fingerprint"):
        monkeypatch.setattr(inputs, name, _heard(name, getattr(inputs, name), seen))
    return seen


def _heard(name: str, function: Callable[..., Any], seen: list[str]) -> Callable[..., Any]:
    def call(*arguments: Any, **options: Any) -> Any:
        seen.append(name)
        return function(*arguments, **options)

    return call


def test_everything_is_made_on_demand_once_and_data_before_weights(open_session: OpenSession, calls: list[str]) -> None:
    session = open_session(reference_cache=False)
    assert calls == []
    assert session.tokenizer.eos_token_id is not None
    assert calls == ["find_model", "load_config", "tokenizer_of"]
    for name in ("held_out", "engine", "reference", "weights", "batches"):
        assert getattr(session, name) is getattr(session, name)
    assert calls == ["find_model", "load_config", "tokenizer_of", "divide", "policy_of", "fingerprint"]
    assert session.held_out is not None
    assert session.held_out.evaluate()["eval/rewards/margins"] == 0, "the policy still is the reference"


def test_data_that_is_not_there_is_refused_before_any_weight(
    open_session: OpenSession, calls: list[str], tmp_path: Path
) -> None:
    session = open_session(data=str(tmp_path / "absent.jsonl"))
    with pytest.raises(DataError, match="no such file"):
        _ = session.engine
    assert "policy_of" not in calls


def test_another_source_of_batches_can_stand_in(open_session: OpenSession, tmp_path: Path) -> None:
    """One that makes its batches while training runs, after it has seen the engine at its current weights."""
    session, seen = open_session(max_steps=3), list[tuple[int, float]]()
    offline = session.batches

    def generating(step: int) -> Sequence[Any]:
        [weight, *_] = (w for w in session.engine.model.parameters() if w.requires_grad)
        seen.append((step, float(weight.detach().double().sum())))
        return offline(0)

    session.batches = generating
    loop = begin(session, tmp_path)
    lines = [loop._step(step) for step in range(3)]
    assert [step for step, _ in seen] == [0, 1, 2]
    assert len({weight for _, weight in seen}) == 3, "it is asked between steps, at the weights of each"
    assert len({line["tokens"] for line in lines}) == 1
    losses = [line["loss"] for line in lines]
    assert losses[0] > losses[1] > losses[2], "three steps on the same rows"


def test_a_trained_model_takes_the_place_of_the_one_it_started_from(open_session: OpenSession, train: Train) -> None:
    ended = train(model=open_session().settings.model)
    session = open_session(uses=("held_out",))
    batches = session.held_out_batches
    started, weights = session.starting_logps(batches), session.weights
    session.become(ended.path / "model")
    state = session.engine.model.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in ended.weights.items())
    now = session.starting_logps(batches)
    assert session.weights == weights, "of the model that it started from"
    assert any(
        not torch.equal(one.logps, other.logps)  # type: ignore[union-attr]
        for one, other in zip(started, now, strict=True)
    )


def test_commands_of_one_process_refuse_several(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("accelerate.Accelerator.num_processes", property(lambda _: 2))
    with pytest.raises(UsageError, match="alignzoo probe works in one process"):
        alone("alignzoo probe")


def test_only_the_session_loads_a_policy() -> None:
    """No command puts a run together in its own way."""
    users = set()
    for folder in (Path(alignzoo.__file__).parent, ROOT / "plugins"):
        for path in folder.rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.ImportFrom) and {"load_policy", "load_base"} & {a.name for a in node.names}:
                    users.add(path.relative_to(folder.parent).as_posix())
    merging = {"alignzoo/stages/merge.py", "plugins/alignzoo_export/weights.py"}  # finished weights; nothing is run
    assert users - merging == {f"alignzoo/session/{name}.py" for name in ("guides", "pristine", "session")}
