"""Recipes of several stages: each a run folder, resumable as a whole, with merges and generated data."""

from __future__ import annotations

import itertools
import json
import signal
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from held import go, holding, until_asked, until_step
from in_process import call_main
from run_helpers import Az, OnTwoRanks, Start, strict_json
from safetensors.torch import load_file

from alignzoo.errors import AlignzooError, UsageError
from alignzoo.plan.recipe import recipe_names
from alignzoo.plugin import plugins_from
from alignzoo.report import Reporter
from alignzoo.stages import execute
from alignzoo.stages.execute import resume_stages, run_stages

Recipe = dict[str, Any]
MERGE = {"a": 0.5, "b": 0.5}


def weights(folder: Path) -> dict[str, torch.Tensor]:
    [file] = (folder / "model").glob("*.safetensors")
    return load_file(file)


@pytest.fixture
def recipe(words: dict[str, Any]) -> Callable[..., Recipe]:
    """A recipe of the given stages over the short runs of these tests."""
    return lambda *stages: {**words, "stages": list(stages)}


def test_every_stage_is_a_run_and_the_next_one_starts_from_its_model(
    recipe: Callable[..., Recipe], tmp_path: Path
) -> None:
    result = run_stages(
        recipe({"name": "first", "loss": "dpo"}, {"name": "second", "loss": "ipo", "model": "stage:first"}),
        out=tmp_path / "both",
    )
    assert list(result.stages) == ["first", "second"]
    assert result.model == str(tmp_path / "both" / "second" / "model")
    second = yaml.safe_load((tmp_path / "both" / "second" / "plan.yaml").read_text())
    assert second["settings"]["model"]["value"] == str(tmp_path / "both" / "first" / "model")
    # IPO of a policy that equals its reference: (1/(2·0.1))² = 25, so the reference is the first stage's model.
    metrics = [json.loads(line) for line in (tmp_path / "both" / "second" / "metrics.jsonl").read_text().splitlines()]
    assert metrics[0]["loss"] == pytest.approx(25.0, abs=1e-3)
    stored = strict_json((tmp_path / "both" / "result.json").read_text())
    assert stored["stages"]["second"]["weights"] == result.stages["second"]["weights"]


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_a_merge_is_the_weighted_sum(recipe: Callable[..., Recipe], tmp_path: Path, share: float) -> None:
    folder = tmp_path / "merge"
    run_stages(
        recipe({"name": "a"}, {"name": "b", "model": "stage:a"}, {"name": "m", "merge": {"a": 1 - share, "b": share}}),
        out=folder,
    )
    a, b, merged = (weights(folder / name) for name in "abm")
    for name, tensor in merged.items():
        assert torch.equal(tensor, (1 - share) * a[name] + share * b[name]), name
    assert any(not torch.equal(a[name], b[name]) for name in a)


def test_a_merge_of_adapters_is_one_of_the_models_they_make(recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    """Mixing A and B of two adapters would not mix the models."""
    from alignzoo.stages.merge import full_model

    folder = tmp_path / "lora"
    given = recipe({"name": "a"}, {"name": "b", "loss": "ipo"}, {"name": "m", "merge": {"a": 0.5, "b": 0.5}})
    run_stages(given | {"lora.r": 4}, out=folder)
    a, b = (full_model(folder / name / "model").state_dict() for name in "ab")
    for name, tensor in weights(folder / "m").items():
        torch.testing.assert_close(tensor, 0.5 * a[name] + 0.5 * b[name])


def test_generated_pairs_are_the_data_of_the_next_stage(recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    folder = tmp_path / "play"
    generation = {"prompts": 10, "max_new_tokens": 8, "batch_size": 4}
    result = run_stages(
        recipe(
            {"name": "answers", "generate": generation},
            {"name": "more", "generate": {**generation, "together_with": "stage:answers"}},
            {"name": "most", "generate": {**generation, "together_with": "stage:more"}},
            {"name": "trained", "data": "stage:more", "probe.share": None},
        ),
        out=folder,
    )
    rows = [json.loads(line) for line in (folder / "answers" / "data.jsonl").read_text().splitlines()]
    more = [json.loads(line) for line in (folder / "more" / "data.jsonl").read_text().splitlines()]
    assert len(rows) == 10
    assert more[-len(rows) :] == rows
    most = [json.loads(line) for line in (folder / "most" / "data.jsonl").read_text().splitlines()]
    own = more[: -len(rows)]
    assert most[-len(own) :] == own
    assert len(most) <= 20, "the previous stage's own pairs, not those of all before it"
    assert all(row["chosen"][0]["role"] == row["rejected"][0]["role"] == "assistant" for row in rows)
    assert all(row["chosen"] != row["rejected"] for row in rows)
    assert sum(result.stages["trained"]["pairs"].values()) == len(more)


def test_generation_resumes_to_the_same_responses(recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    given = recipe({"name": "answers", "generate": {"prompts": 9, "max_new_tokens": 6, "batch_size": 2}})
    run_stages(given, out=tmp_path / "whole")
    run_stages(given, out=tmp_path / "cut")
    whole = (tmp_path / "whole" / "answers" / "data.jsonl").read_text()
    parts = sorted((tmp_path / "cut" / "answers" / "parts").iterdir())
    for path in (*parts[1:3], tmp_path / "cut" / "answers" / "data.jsonl"):
        path.unlink()
    kept = parts[0].stat().st_mtime_ns
    resume_stages(tmp_path / "cut", reporter=Reporter())
    assert (tmp_path / "cut" / "answers" / "data.jsonl").read_text() == whole
    assert parts[0].stat().st_mtime_ns == kept, "what was there was not generated again"


def test_a_killed_run_resumes_at_its_stage(
    recipe: Callable[..., Recipe], tmp_path: Path, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed in its second stage, it ends with the weights of a run that was not."""
    given = recipe({"name": "first"}, {"name": "second", "model": "stage:first", "loss": "ipo", "max-steps": 40})
    file = tmp_path / "two.yaml"
    file.write_text(yaml.safe_dump(given | {"save-every": 5}))
    run_stages(str(file), out=tmp_path / "whole")
    folder = tmp_path / "killed"
    words = holding(tmp_path)
    monkeypatch.setenv("HOLD_AT", "7")
    process = start("run", "--recipe", str(file), "--out", str(folder), *words)
    until_step(folder / "second", 7, process)
    process.kill()
    process.communicate()
    monkeypatch.delenv("HOLD_AT")
    assert not (folder / "result.json").exists()
    with plugins_from(words[1]):
        result = resume_stages(folder, reporter=Reporter())
    assert list(result.stages) == ["first", "second"]
    expected = weights(tmp_path / "whole" / "second")
    assert all(torch.equal(tensor, expected[name]) for name, tensor in weights(folder / "second").items())


@pytest.mark.parametrize(
    ("stages", "said"),
    [
        ([{"loss": "dpo"}], "stage 1 has no valid name"),
        ([{"name": "a"}, {"name": "a"}], "two stages 'a'"),
        ([{"name": "a", "model": "stage:b"}], "no earlier stage 'b'"),
        ([{"name": "a"}, {"name": "b", "data": "stage:a"}], "stage a gives a model, not data"),
        ([{"name": "a"}, {"name": "b", "lr": "stage:a"}], "lr cannot be stage:a"),
        ([{"name": "a", "merge": {"x": 1.0}}], "not two or more stages with their weights"),
        ([{"name": "a", "generate": {"temprature": 1}}], "generate.temprature"),
        ([{"name": "a", "loss": "dqo"}], "unknown loss 'dqo'"),
        ([{"name": "a", "out": "x"}], "no folder of its own"),
        (["a"], "not a mapping"),
        ([{"name": "a", "save-model": False}, {"name": "b", "model": "stage:a"}], "b) needs the model of stage a"),
        ([{"name": "a", "save-model": False}, {"name": "b"}, {"name": "c", "merge": MERGE}], "c) needs the model"),
    ],
)
def test_a_malformed_stage_is_refused_before_anything_is_written(
    recipe: Callable[..., Recipe], tmp_path: Path, stages: list[Any], said: str
) -> None:
    with pytest.raises(UsageError) as error:
        run_stages(recipe(*stages), out=tmp_path / "none")
    assert said in str(error.value)
    assert not (tmp_path / "none").exists()


def test_a_failing_stage_says_how_to_resume_all(recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    given = recipe({"name": "first"}, {"name": "second", "model": str(tmp_path / "nowhere")})
    with pytest.raises(AlignzooError) as error:
        run_stages(given, out=tmp_path / "half")
    assert error.value.message.startswith("stage second: ")
    assert f"alignzoo run --resume {tmp_path / 'half'}" in str(error.value.hint)
    assert (tmp_path / "half" / "first" / "result.json").is_file()


def test_on_the_command_line(recipe: Callable[..., Recipe], tmp_path: Path, az: Az) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump(recipe({"name": "a"}, {"name": "b", "model": "stage:a", "save-model": False})))
    dry = az("run", "--recipe", str(file), "--dry-run", "--loss", "ipo")
    assert dry.returncode == 0
    assert dry.stdout.count("alignzoo run --loss ipo") == 2
    facts = json.loads(az("run", "--recipe", str(file), "--dry-run", "--json").stdout)
    assert [stage["name"] for stage in facts["stages"]] == ["a", "b"]
    folder = tmp_path / "out"
    done = az("run", "--recipe", str(file), "--max-steps", "1", "--out", str(folder), "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["stages"]["b"]["steps"] == 1
    assert result["model"] == str(folder / "a" / "model"), "the last one that is kept"
    again = az("run", "--resume", str(folder))
    assert again.returncode == 0, again.stderr
    assert "has already finished" in again.stderr
    other = az("plan", "--recipe", str(file))
    assert other.returncode == 2
    assert "several stages" in other.stderr


@pytest.mark.parametrize("name", recipe_names())
def test_every_shipped_recipe_has_a_dry_run(
    name: str, pairs: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Even if a second passes between two looks at the clock, from which the run's folder gets its name."""
    monkeypatch.setattr(execute, "datetime", _Clock())
    words = [] if name == "sandbox" else ["--model", "sandbox", "--data", str(pairs)]
    ended = call_main(["run", "--recipe", name, "--dry-run", *words], capfd)
    assert ended.returncode == 0, ended.stderr


class _Clock:
    """A ``datetime`` on which every ``now()`` is a second later than the last."""

    def __init__(self) -> None:
        self.seconds = itertools.count()

    def now(self) -> datetime:
        return datetime.fromtimestamp(next(self.seconds))


@pytest.mark.slow  # like the killed run above, by a signal
def test_an_interrupted_run_says_how_to_resume_all(
    recipe: Callable[..., Recipe], tmp_path: Path, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C in the second of three stages, the last of which merges."""
    given = recipe(
        {"name": "a"}, {"name": "b", "model": "stage:a", "max-steps": 60, "epochs": 99}, {"name": "c", "merge": MERGE}
    )
    file, folder = tmp_path / "three.yaml", tmp_path / "three"
    file.write_text(yaml.safe_dump(given))
    words = holding(tmp_path)
    monkeypatch.setenv("HOLD_AT", "3")
    process = start("run", "--recipe", str(file), "--out", str(folder), *words)
    until_step(folder / "b", 3, process)
    process.send_signal(signal.SIGINT)
    stderr = until_asked(process)
    go(folder / "b")
    stderr += process.communicate(timeout=200)[1]
    assert process.returncode == 130, stderr
    assert f"alignzoo run --resume {folder} --plugin {words[1]}\n" in stderr
    assert f"--resume {folder / 'b'}" not in stderr
    assert (folder / "b" / "checkpoints").is_dir()
    before = (folder / "a" / "result.json").stat().st_mtime_ns
    with plugins_from(words[1]):
        result = resume_stages(folder, reporter=Reporter())
    assert list(result.stages) == ["a", "b", "c"]
    assert result.stages["b"]["steps"] == 60
    assert (folder / "a" / "result.json").stat().st_mtime_ns == before, "a finished stage is not run again"


@pytest.mark.slow
def test_stages_on_two_ranks_generate_the_same_pairs(
    recipe: Callable[..., Recipe], tmp_path: Path, on_two_ranks: OnTwoRanks
) -> None:
    generation = {"prompts": 10, "max_new_tokens": 8, "batch_size": 3}
    given = recipe({"name": "answers", "generate": generation}, {"name": "trained", "data": "stage:answers"})
    file = tmp_path / "play.yaml"
    file.write_text(yaml.safe_dump(given | {"max-steps": 2, "batch-size": 4, "probe.share": None}))
    run_stages(str(file), out=tmp_path / "alone")
    both = on_two_ranks("run", "--recipe", str(file), "--out", str(tmp_path / "both"))
    assert both.returncode == 0, both.stderr
    alone, both_of = (tmp_path / name / "answers" / "data.jsonl" for name in ("alone", "both"))
    assert both_of.read_text() == alone.read_text()
    expected = weights(tmp_path / "alone" / "trained")
    for name, tensor in weights(tmp_path / "both" / "trained").items():
        torch.testing.assert_close(tensor, expected[name], atol=2e-5, rtol=0)


def test_pku_by_helpfulness_and_by_safety() -> None:
    from alignzoo_layouts.pku import PKU_HELPFUL, PKU_SAFERLHF

    row = {
        "prompt": "p", "response_0": "zero", "response_1": "one", "better_response_id": 0, "safer_response_id": 1,
        "is_response_0_safe": False, "is_response_1_safe": True,
    }  # fmt: skip
    safer, better = PKU_SAFERLHF.normalise(row), PKU_HELPFUL.normalise(row)
    assert (safer.chosen, safer.chosen_safe) == ("one", True)  # type: ignore[union-attr]
    assert (better.chosen, better.chosen_safe) == ("zero", False)  # type: ignore[union-attr]
    assert not PKU_HELPFUL.fits(row)
