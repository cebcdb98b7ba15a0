"""Runs with plugins: an old one still works, observers cannot break anything, changes are said on resume."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from heard import Heard
from in_process import call_main
from run_helpers import RunFolder, Train, write_rows

import alignzoo
from alignzoo.contract.card import OLDEST_PLUGIN_API, PLUGIN_API
from alignzoo.errors import BrokenPluginError, DataError, MethodError, UsageError
from alignzoo.plugin import plugins_from

OLD = Path(__file__).parents[1] / "plugin" / "api_1" / "plugin_of_api_1.py"
NEW = Path(__file__).parents[1] / "plugin" / "api_2" / "plugin_of_api_2.py"
HEAD = (
    "from alignzoo.plugin import Extension, hookimpl\n"
    "from alignzoo.observers import RunObserver\n"
    "from alignzoo.data.formats import Layout\n"
    "from alignzoo.data.rows import PreferenceRow\n"
)
MakePlugin = Callable[[str], Path]


@pytest.fixture
def make_plugin(tmp_path: Path) -> MakePlugin:
    """A file with a plugin in it; the hooks' import lines are there already."""
    count = 0

    def make(source: str) -> Path:
        nonlocal count
        count += 1
        path = tmp_path / f"plugin_{tmp_path.name}_{count}.py"
        path.write_text(HEAD + source)
        return path

    return make


def observer(body: str) -> str:
    return (
        f"class Eye(RunObserver):\n{body}\n"
        "@hookimpl\ndef alignzoo_observers():\n"
        "    return [Extension(kind='observer', name='eye', target=f'{__name__}:Eye', summary='looks')]\n"
    )


def test_a_plugin_of_the_oldest_api_works(train: Train, tmp_path: Path) -> None:
    assert OLDEST_PLUGIN_API == 1, "when API 1 is given up, this plugin goes with it"
    rows = [{"ask": f"Question {i}?", "good": f"I cannot {i}.", "bad": f"Sure, {i}."} for i in range(60)]
    pairs = write_rows(tmp_path / "asked.jsonl", rows)
    with plugins_from(OLD):
        run = train(loss="old-mix", data=str(pairs), observe="old-observer", eval_every=1, save_every=1)
    assert run.result["sentence"] == "--loss old-loss --robust old-wrapper --geometry old-controller"
    assert [line["geometry/pairs"] for line in run.metrics] == [8, 8]
    assert json.loads((run.path / "data.json").read_text())["train"]["format"] == "old-layout"
    assert (run.path / "heard.txt").read_text().splitlines() == [
        "start 2 old-loss",
        "evaluation 0 True",
        "step 1 1",
        "evaluation 1 True",
        "checkpoint 1 True",
        "step 2 2",
        "evaluation 2 True",
        "checkpoint 2 True",
        "evaluation 2 True",
        "end finished",
    ]


def test_a_plugin_of_the_newest_api_works(train: Train, tmp_path: Path) -> None:
    assert PLUGIN_API == 2, "pin a plugin of the new API beside this one"
    rows = [{"ask": f"Question {i}?", "answer": f"I cannot {i}.", "votes": i % 3 - 1} for i in range(90)]
    voted = write_rows(tmp_path / "voted.jsonl", rows)
    with plugins_from(NEW):
        run = train(loss="label-loss", geometry="halved-tilt", data=str(voted), max_steps=3)
    assert run.result["sentence"] == "--loss label-loss --robust tilt --geometry halved"
    facts = json.loads((run.path / "data.json").read_text())["train"]
    assert (facts["format"], facts["shape"]) == ("voted", "unpaired")
    for line in run.metrics:
        assert line["geometry/rows"] == line["geometry/responses"] == line["robust/tilt/values"] == 8
        assert line["robust/tilt/worst"] >= line["loss"] - 1e-9
        assert 0 <= line["loss/label-loss/desirable"] <= 1
    first, _, third = (line["loss/label-loss/baseline"] for line in run.metrics)
    assert first == 0 != third, "the baseline is of the steps before, and rewards are 0 in the first of them"


def test_observers_that_fail_and_meddle_change_nothing(train: Train, make_plugin: MakePlugin) -> None:
    plain = train(loss="dpo")
    body = (
        "    def on_start(self, folder, plan, steps):\n        plan['loss'].clear()\n"
        "    def on_step_end(self, step, metrics):\n"
        "        import torch\n        torch.manual_seed(step)\n        torch.rand(3)\n"
        "        metrics['loss'] = 0.0\n        print('on stdout')\n"
        "        raise SystemExit('enough') if step == 2 else None or (_ for _ in ()).throw(ValueError('no'))\n"
        "    def on_end(self, result, error):\n        raise AssertionError('it was switched off')\n"
    )
    report = Heard()
    with plugins_from(make_plugin(observer(body))):
        observed = train(report=report, loss="dpo", observe="eye")
    assert observed.result["weights"] == plain.result["weights"]
    assert [line["loss"] for line in observed.metrics] == [line["loss"] for line in plain.metrics]
    said = [text for text in report.warnings if "eye" in text]
    assert said == ["observer 'eye' failed in on_step_end and is switched off: ValueError: no"]


def test_an_observer_hears_of_a_failure(train: Train, make_plugin: MakePlugin, tmp_path: Path) -> None:
    heard = tmp_path / "end.txt"
    body = f"    def on_end(self, result, error):\n        open({str(heard)!r}, 'w').write(f'{{result}} {{error}}')\n"
    with plugins_from(make_plugin(observer(body))), pytest.raises(alignzoo.AlignzooError):
        train(loss="dpo", observe="eye", lr=1e30, max_steps=4)
    assert heard.read_text().startswith("None step ")


def test_an_observer_that_cannot_be_built_or_found_stops_the_run_before_it(
    train: Train, make_plugin: MakePlugin
) -> None:
    with pytest.raises(UsageError, match="unknown observer 'eye'"):
        train(loss="dpo", observe="eye")
    broken = make_plugin(observer("    def __init__(self): raise OSError('no key')\n"))
    with (
        plugins_from(broken),
        pytest.raises(BrokenPluginError, match=r"observer 'eye' cannot be built.*OSError: no key"),
    ):
        train(loss="dpo", observe="eye")


def layout(fits: str, normalise: str) -> str:
    return (
        f"LAYOUT = Layout('q-a', 'q, yes, no: text', {fits}, {normalise})\n"
        "@hookimpl\ndef alignzoo_formats():\n"
        "    return [Extension(kind='format', name='q-a', target=f'{__name__}:LAYOUT', summary='q, yes, no')]\n"
    )


QA = "lambda row: PreferenceRow(row['q'], row['yes'], row['no'])"


def test_a_layout_of_a_plugin(train: Train, make_plugin: MakePlugin, tmp_path: Path) -> None:
    rows = [{"q": f"Question {i}?", "yes": f"Yes {i}.", "no": f"No {i}."} for i in range(60)]
    pairs = str(write_rows(tmp_path / "qa.jsonl", rows))
    with plugins_from(make_plugin(layout("lambda row: 'q' in row", QA))):
        for words in ({}, {"data.format": "q-a"}):
            assert RunFolder(train(loss="simpo", data=pairs, **words).path).result["steps"] == 2
    with plugins_from(make_plugin(layout("lambda row: 1 / 0", QA))):
        with pytest.raises(DataError, match="no known preference layout") as error:
            train(loss="simpo", data=pairs)
        assert "q-a: q, yes, no: text" in str(error.value)
        train(loss="dpo")  # the built-in layouts are looked at first
    for normalise, message in (
        ("lambda row: row['absent']", r"qa\.jsonl:1: layout q-a of .* failed: KeyError: 'absent'"),
        ("lambda row: 3", r"layout q-a of .* returned a int for a row"),
        ("lambda row: PreferenceRow(row['q'], 5, None)", r"qa\.jsonl:1: layout q-a of .* returned chosen as int"),
    ):
        wrong = make_plugin(layout("lambda row: 'q' in row", normalise))
        with plugins_from(wrong), pytest.raises(DataError, match=message):
            train(loss="simpo", data=pairs)
    with pytest.raises(UsageError, match="no such layout"):
        train(loss="simpo", data=pairs, **{"data.format": "q-a"})


def judge(body: str) -> str:
    return (
        f"def judge(request, answer):\n    {body}\n"
        "@hookimpl\ndef alignzoo_judges():\n"
        "    return [Extension(kind='judge', name='strict', target=f'{__name__}:judge', summary='x')]\n"
    )


@pytest.mark.slow
def test_a_judge_that_does_not_judge_is_named(train: Train, make_plugin: MakePlugin) -> None:
    embedded: dict[str, Any] = {"plain": True, "max_steps": 1, "batch_size": 2, "judge": "strict"}
    with (
        plugins_from(make_plugin(judge("return 'maybe'"))),
        pytest.raises(MethodError, match="judge judge returned 'maybe'"),
    ):
        train(**embedded)
    with (
        plugins_from(make_plugin(judge("return 'broken'"))),
        pytest.raises(UsageError, match="--judge has no effect here"),
    ):
        train(loss="dpo", judge="strict")


def test_a_resume_says_that_a_plugin_has_changed(
    make_plugin: MakePlugin, words: dict[str, Any], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = make_plugin(observer("    pass\n"))
    with plugins_from(path):
        alignzoo.run({**words, "observe": "eye", "save-every": 1, "out": str(tmp_path / "run")})
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "step-00000002")
    (tmp_path / "run" / "result.json").unlink()
    refused = call_main(["run", "--resume", str(tmp_path / "run")], capfd)
    assert refused.returncode == 2
    assert f"--resume {tmp_path / 'run'} --plugin {path}" in refused.stderr
    path.write_text(path.read_text() + "# another comment\n")
    ended = call_main(["run", "--resume", str(tmp_path / "run"), "--plugin", str(path)], capfd)
    assert ended.returncode == 0, ended.stderr
    said = [line for line in ended.stderr.splitlines() if "has changed since this run started" in line]
    assert len(said) == 1
    assert "its files have changed" in said[0]
    assert RunFolder(tmp_path / "run").result["steps"] == 2
