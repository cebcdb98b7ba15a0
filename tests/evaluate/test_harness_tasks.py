"""Tasks of lm-eval on a model in memory: plain lm_eval's numbers, kept results, and what is refused."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import sqlite3
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from alignzoo.errors import DataError, UsageError
from alignzoo.evaluate.tasks.harness import TaskResults, run_tasks
from alignzoo.report import Progress, Reporter

TASKS = Path(__file__).parent / "tasks"
NAMES = ["alignzoo_colours", "alignzoo_sums"]


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tasks of this folder, with whole paths to their data."""
    folder = tmp_path_factory.mktemp("tasks")
    for path in TASKS.glob("*.yaml"):
        text = path.read_text().replace("tests/evaluate/tasks", str(TASKS))
        (folder / path.name).write_text(text)
    return folder


@pytest.fixture(scope="module")
def checkpoint() -> Path:
    from alignzoo.model.source import find_model

    return Path(find_model("sandbox").path)


@pytest.fixture(scope="module")
def model(checkpoint: Path) -> Any:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    return SimpleNamespace(
        policy=AutoModelForCausalLM.from_pretrained(checkpoint), tokenizer=AutoTokenizer.from_pretrained(checkpoint)
    )


class Heard(Reporter):
    """What was reported."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.bars: dict[str, int] = {}

    def note(self, text: str) -> None:
        self.notes.append(text)

    def progress(self, total: int, description: str, *, unit: str = "it", done: int = 0) -> Any:
        heard = self

        class Bar(Progress):
            def __enter__(self) -> Bar:
                heard.bars[description] = done
                return self

            def __exit__(self, *_: object) -> None: ...

            def advance(self, **figures: str) -> None:
                heard.bars[description] += 1

        return Bar()


@pytest.fixture(scope="module")
def run(model: Any, tasks: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[TaskResults, Path, Heard]:
    out, heard = tmp_path_factory.mktemp("out"), Heard()
    random.seed(7)
    model.policy.train()
    results = run_tasks(model, NAMES, out=out, report=heard, include_path=tasks, about={"model": "weights"})
    return results, out, heard


def samples(out: Path, task: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "tasks" / f"{task}.jsonl").read_text().splitlines()]


def test_numbers_and_texts_are_those_of_plain_lm_eval(
    run: tuple[TaskResults, Path, Heard], checkpoint: Path, tasks: Path
) -> None:
    from lm_eval.evaluator import simple_evaluate
    from lm_eval.tasks import TaskManager

    results, out, _ = run
    plain = simple_evaluate(
        "hf",
        model_args={"pretrained": str(checkpoint), "dtype": "float32", "device": "cpu"},
        tasks=list(NAMES),
        task_manager=TaskManager(include_defaults=False, include_path=str(tasks)),
        batch_size=1,
        bootstrap_iters=1000,
    )
    for name in NAMES:
        figures, version = plain["results"][name], plain["versions"][name]
        found = results.results[name]
        assert (found.n, found.version) == (plain["n-samples"][name]["effective"], str(version))
        for key, metric in found.metrics.items():
            assert metric.value == pytest.approx(figures[key])
            assert metric.stderr == pytest.approx(figures[key.replace(",", "_stderr,")])
            assert metric.higher_is_better is True
        for ours, theirs in zip(samples(out, name), plain["samples"][name], strict=True):
            assert (ours["doc_id"], ours["prompt_hash"]) == (theirs["doc_id"], theirs["prompt_hash"])
            if name == "alignzoo_sums":
                assert ours["resps"] == theirs["resps"]
            else:
                ours_scores, theirs_scores = (
                    [float(score) for [[score, _greedy]] in sample["resps"]] for sample in (ours, theirs)
                )
                assert ours_scores == pytest.approx(theirs_scores, abs=1e-4)


def test_it_reports_progress_and_leaves_the_process_as_it_was(
    run: tuple[TaskResults, Path, Heard], model: Any, tasks: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    _, _, heard = run
    assert heard.bars == {"scoring (alignzoo_colours)": 48, "generating (alignzoo_sums)": 8}
    model.policy.train()
    random.seed(7)
    state = random.getstate()
    run_tasks(model, NAMES[:1], out=None, report=Reporter(), include_path=tasks, limit=2)
    assert random.getstate() == state
    assert model.policy.training
    assert capfd.readouterr() == ("", "")


def test_finished_tasks_are_kept(run: tuple[TaskResults, Path, Heard], tasks: Path) -> None:
    results, out, _ = run
    heard = Heard()
    nothing = SimpleNamespace(tokenizer=None)  # no policy to load
    again = run_tasks(nothing, NAMES, out=out, report=heard, include_path=tasks, about={"model": "weights"})
    assert again == results
    assert heard.notes == ["2 of 2 tasks are finished already"]
    with pytest.raises(UsageError, match=r"colours.json is of another evaluation: limit, model differ") as refused:
        run_tasks(nothing, NAMES, out=out, report=heard, include_path=tasks, about={"model": "others"}, limit=2)
    assert "--overwrite" in str(refused.value)


class Stuck(Reporter):
    """A bar that never comes past the third request."""

    def progress(self, total: int, description: str, *, unit: str = "it", done: int = 0) -> Any:
        class Bar(Progress):
            requests = 0

            def advance(self, **figures: str) -> None:
                self.requests += 1
                if self.requests == 3:
                    time.sleep(600)

        return contextlib.nullcontext(Bar())


def answers_kept(folder: Path) -> int:
    """Answers in lm-eval's cache, whose table is made, and filled, by a thread of its own."""
    [path] = folder.glob("*.db")
    with contextlib.closing(sqlite3.connect(path)) as database:
        [(tables,)] = database.execute("SELECT COUNT(*) FROM sqlite_master")
        [(rows,)] = database.execute("SELECT COUNT(*) FROM unnamed") if tables else [(0,)]
    return int(rows)


def test_a_killed_task_resumes_where_it_was(model: Any, tasks: Path, tmp_path: Path) -> None:
    child = os.fork()
    if not child:
        with contextlib.suppress(BaseException):
            run_tasks(model, NAMES[1:], out=tmp_path, report=Stuck(), include_path=tasks, batch_size=1)
        os._exit(1)
    folder = tmp_path / "tasks"
    while not list(folder.glob("*.db")) or answers_kept(folder) < 2:
        assert os.waitpid(child, os.WNOHANG) == (0, 0), "it ended"
        time.sleep(0.02)
    os.kill(child, signal.SIGKILL)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    assert not (folder / "alignzoo_sums.json").exists()
    heard = Heard()
    run_tasks(model, NAMES[1:], out=tmp_path, report=heard, include_path=tasks)
    assert list(heard.bars.values()) == [6]
    assert len(samples(tmp_path, "alignzoo_sums")) == 8
    assert not list(folder.glob("*.db*"))


def test_an_adapter_counts(model: Any, checkpoint: Path, tasks: Path, tmp_path: Path) -> None:
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    config = LoraConfig(target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    adapted = get_peft_model(AutoModelForCausalLM.from_pretrained(checkpoint), config)
    session = SimpleNamespace(policy=adapted, tokenizer=model.tokenizer)
    run_tasks(session, NAMES, out=tmp_path / "adapter", report=Reporter(), include_path=tasks)
    merged = SimpleNamespace(policy=adapted.merge_and_unload(), tokenizer=model.tokenizer)
    run_tasks(merged, NAMES, out=tmp_path / "merged", report=Reporter(), include_path=tasks)
    texts = [[s["resps"] for s in samples(tmp_path / kind, "alignzoo_sums")] for kind in ("adapter", "merged")]
    assert texts[0] == texts[1]


def test_data_that_cannot_be_loaded_is_named_before_weights(tasks: Path, tmp_path: Path) -> None:
    text = (tasks / "sums.yaml").read_text()
    (tmp_path / "gone.yaml").write_text(text.replace("alignzoo_sums", "gone").replace("sums.jsonl", "missing.jsonl"))
    (tmp_path / "hub.yaml").write_text("task: hub\ndataset_path: somebody/somedata\ntest_split: test\n")
    for name, dataset in (("gone", "json"), ("hub", "somebody/somedata")):
        with pytest.raises(DataError, match=rf"the data of task {name} cannot be loaded \({dataset}\)") as refused:
            run_tasks(None, [name], out=None, report=Reporter(), include_path=tmp_path)
        assert "HF_HOME" in str(refused.value)


def test_a_missing_package_is_named(tasks: Path, tmp_path: Path) -> None:
    shutil.copy(tasks / "sums.yaml", tmp_path / "sums.yaml")
    with (tmp_path / "sums.yaml").open("a") as file:
        file.write("process_results: !function needs.results\n")
    (tmp_path / "needs.py").write_text("import langdetect_absent\n")
    with pytest.raises(Exception, match="needs the package langdetect_absent") as refused:
        run_tasks(None, ["alignzoo_sums"], out=None, report=Reporter(), include_path=tmp_path)
    assert "pip install" in str(refused.value)
