"""Runs on a model, data and an evaluator that a plugin of one file brings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from heard import Heard
from run_helpers import MakeModel, RunFolder
from transformers import AutoModelForCausalLM
from worlds import world

import alignzoo
from alignzoo.errors import AlignzooError, BrokenPluginError, DataError, MethodError, UsageError
from alignzoo.plugin import plugins_from

WORDS: dict[str, Any] = {
    "model": "toy-model",
    "data": "towers",
    "max-steps": 2,
    "batch-size": 4,
    "lr": 1e-2,
    "warmup-steps": 0,
    "probe.share": 0,
}


def squared(folder: Path) -> float:
    model = AutoModelForCausalLM.from_pretrained(folder)
    return sum(float(weight.detach().double().square().sum()) for weight in model.parameters())


def test_a_model_data_and_an_evaluator_of_a_plugin(
    make_model: MakeModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "towers").mkdir()
    monkeypatch.chdir(tmp_path)  # a name is stronger than a folder, and no path is made of it
    model, report, plugin = make_model(), Heard(), world(tmp_path, repr(str(make_model())))
    with plugins_from(plugin):
        run = RunFolder(Path(alignzoo.run({**WORDS, "out": "run"}, report=report).folder))
    result = run.result
    assert result["pairs"] == {"train": 24, "held_out": 6, "probe": 0}
    assert result["before"]["size/squared"] == pytest.approx(squared(model))
    assert result["after"]["size/squared"] == pytest.approx(squared(run.path / "model"))
    assert result["after"]["size/squared"] != pytest.approx(result["before"]["size/squared"])
    rows = json.loads((run.path / "data.json").read_text())
    assert rows.pop("training") == {"rows": 24, "steps": 2}
    assert {part: (rows[part]["source"], rows[part]["split"]) for part in rows} == {
        "train": ("towers", "train"),
        "eval": ("towers", "validation"),
    }
    settings = yaml.safe_load((run.path / "plan.yaml").read_text())["settings"]
    assert [settings[name]["value"] for name in ("model", "data")] == ["toy-model", "towers"]
    [[name, before, after]] = report.tables["size"]
    assert (name, float(before), float(after)) == (
        "squared",
        result["before"]["size/squared"],
        result["after"]["size/squared"],
    )


def test_no_samples_leaves_the_evaluator_out(make_model: MakeModel, tmp_path: Path) -> None:
    with plugins_from(world(tmp_path, repr(str(make_model())))):
        result = alignzoo.run({**WORDS, "samples": False, "out": str(tmp_path / "run")})
    assert [name for name in result.after if not name.startswith("eval/")] == []


@pytest.mark.parametrize(
    ("words", "change", "kind", "said"),
    [
        ({"judge": "sandbox"}, None, UsageError, "the evaluator of --data towers takes no judge"),
        ({"eval-share": 0.5}, None, UsageError, "--data towers has its own splits and layout"),
        ({"judge": "nobody"}, None, UsageError, "unknown judge 'nobody'"),
        ({"data": "towels"}, None, AlignzooError, "towels"),
        ({}, ("return {", 'return {"bad": float("nan"), '), MethodError, "gave nan for 'bad'"),
        ({}, ("assert run.judge is None", "raise SystemExit(0)"), MethodError, "evaluator 'size' failed"),
        ({}, ("first, last =", "raise OSError('gone')\n        first, last ="), DataError, "OSError: gone"),
        ({}, ("def place():", "def place():\n    return 3"), BrokenPluginError, "gave a int"),
        ({}, ('evaluator="size"', 'evaluator="nobody"'), UsageError, "unknown evaluator 'nobody'"),
        ({"eval-data": "towers", "data": "sandbox"}, ("held_out=True, ", ""), UsageError, "no validation split"),
    ],
    ids=str,
)
def test_what_cannot_work_is_said(
    words: dict[str, Any],
    change: tuple[str, str] | None,
    kind: type[AlignzooError],
    said: str,
    make_model: MakeModel,
    tmp_path: Path,
) -> None:
    changes = [change] if change else []
    path = world(tmp_path, repr(str(make_model())), *changes)
    with plugins_from(path), pytest.raises(kind) as error:
        alignzoo.run({**WORDS, **words, "out": str(tmp_path / "run")})
    assert said in str(error.value)
    assert not (tmp_path / "run" / "model").exists()


def test_data_without_a_held_out_part_is_divided(make_model: MakeModel, tmp_path: Path) -> None:
    path = world(tmp_path, repr(str(make_model())), ("held_out=True, ", ""))
    with plugins_from(path):
        result = alignzoo.run({**WORDS, "eval-share": 0.25, "out": str(tmp_path / "run")})
    assert result.pairs["train"] + result.pairs["held_out"] == 24
    assert result.pairs["held_out"] > 0


def test_two_plugins_with_data_of_one_name(make_model: MakeModel, tmp_path: Path) -> None:
    paths = [world(tmp_path, repr(str(make_model()))) for _ in range(2)]
    with plugins_from(*paths), pytest.raises(UsageError, match="'towers' is provided by 2 plugins") as error:
        alignzoo.run({**WORDS, "out": str(tmp_path / "run")})
    assert f"--model {paths[0].name}:toy-model" in str(error.value)
