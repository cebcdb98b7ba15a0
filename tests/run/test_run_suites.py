"""Suites and samples during a run: figures before, during and after training, by the judges that were asked for."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from heard import Heard
from run_helpers import Az, Train

from alignzoo.runs.generated import write_samples

Command = Callable[..., list[str]]
SUITES = {"eval-suite": "sandbox-borderline", "eval-suite.limit": 4, "eval-suite.max-new-tokens": 12}


def test_suites_and_samples_at_every_evaluation(train: Train) -> None:
    heard = Heard()
    run = train(**SUITES, show_samples=2, eval_every=1, track="tensorboard", judge=["refusal"], report=heard)
    name = "suite/sandbox-borderline/over_refusal"
    figures = [run.result["before"], *run.metrics, run.result["after"]]
    assert [0 <= line[name] <= 1 for line in figures] == [True] * 4
    assert figures[-2][name] == figures[-1][name]
    lines = [json.loads(line) for line in (run.path / "samples.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [0, 0, 1, 1, 2, 2]
    assert len({line["prompt"] for line in lines}) == 2
    assert all(isinstance(line["response"], str) for line in lines)
    [[label, before, after]] = heard.tables["suites, share of prompts"]
    assert label == "over-refusal, sandbox-borderline"
    assert (float(before), float(after)) == pytest.approx((figures[0][name], figures[-1][name]), abs=5e-4)
    events = b"".join(path.read_bytes() for path in run.path.rglob("events.out.tfevents.*"))
    assert b"samples/1" in events
    assert name.encode() in events
    assert [judge["name"] for judge in run.plan["judge"]] == ["refusal"]
    assert run.result["weights"] == train(eval_every=1).result["weights"]  # generating changes nothing


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"eval-suite": "sandbox-borderlin"}, "did you mean sandbox-borderline?"),
        ({"judge": "refusal"}, "this run generates no responses to judge"),
        ({"eval-suite.limit": 3}, "no suites are named"),
        ({"eval-suite": "sandbox-borderline", "judge": "refusl"}, "did you mean refusal?"),
    ],
    ids=str,
)
def test_what_cannot_work_is_refused_before_weights_load(
    words: dict[str, Any], said: str, az: Az, command: Command, tmp_path: Path
) -> None:
    ended = az(*command(tmp_path / "run", "--dry-run", **words))
    assert ended.returncode == 2
    assert said in ended.stderr
    assert not (tmp_path / "run").exists()


def test_samples_of_steps_that_are_taken_again_are_replaced(tmp_path: Path) -> None:
    path = tmp_path / "samples.jsonl"
    for step, word in ((0, "a"), (2, "b"), (4, "c"), (2, "d")):
        write_samples(path, [{"step": step, "response": word}], step)
    assert [json.loads(line)["response"] for line in path.read_text().splitlines()] == ["a", "d"]
