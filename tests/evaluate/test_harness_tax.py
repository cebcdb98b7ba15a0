"""The alignment tax of a model against its base."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from in_process import call_main
from scipy.stats import bootstrap

from alignzoo.evaluate.results import read_evaluation
from alignzoo.evaluate.tasks.task_results import Metric, TaskResult, TaskResults, task_rows
from alignzoo.evaluate.tasks.tax import alignment_tax, tax_rows

BASE = [1, 1, 1, 0, 1, 1, 0, 1, 1, 1, 0, 1, 1, 1, 1, 0, 1, 1, 0, 1]
MODEL = [1, 0, 1, 0, 1, 1, 0, 1, 0, 1, 1, 1, 1, 0, 1, 0, 0, 1, 0, 1]


def result(folder: Path, task: str, values: Sequence[float], metric: str = "acc,none") -> TaskResult:
    """A task's result, with its samples in a folder."""
    (folder / "tasks").mkdir(parents=True, exist_ok=True)
    name, chosen = metric.split(",")
    lines = [json.dumps({"doc_id": i, "filter": chosen, name: value}) for i, value in enumerate(values)]
    (folder / "tasks" / f"{task}.jsonl").write_text("\n".join(lines))
    return TaskResult(task, {metric: Metric(float(np.mean(values)), None, True)}, len(values), 0, "1.0")


def results(*found: TaskResult) -> TaskResults:
    return TaskResults({one.name: one for one in found}, tuple(one.name for one in found), "0.4.13")


def test_differences_are_paired_by_document(tmp_path: Path) -> None:
    here, there = tmp_path / "model", tmp_path / "base"
    tax = alignment_tax(results(result(here, "a", MODEL)), results(result(there, "a", BASE)), here, there)
    [found] = tax.differences
    gaps = np.array(MODEL, dtype=float) - BASE
    expected = bootstrap((gaps,), np.mean, method="percentile", n_resamples=20_000, rng=0).confidence_interval
    assert (found.base, found.model, found.n) == (0.75, 0.6, 20)
    assert found.difference == pytest.approx(-0.15)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=0.051)  # in steps of 1/20
    assert tax.tax == pytest.approx(0.15)
    assert (tax.low, tax.high) == pytest.approx((-found.high, -found.low))
    assert tax_rows(tax)[0][:4] == ["a", "acc", "0.750", "0.600"]
    assert tax_rows(tax)[0][4] == f"-0.150 [{found.low:+.3f}, {found.high:+.3f}]"


def test_the_tax_is_the_mean_loss_over_shares(tmp_path: Path) -> None:
    here, there = tmp_path / "model", tmp_path / "base"
    perplexity = {"perplexity,none": Metric(12.0, None, False)}
    sets = [
        results(
            result(folder, "a", first),
            result(folder, "b", second),
            TaskResult("words", perplexity, 5, 0, "1"),
        )
        for folder, first, second in ((here, MODEL, BASE), (there, BASE, BASE))
    ]
    for folder in (here, there):  # a perplexity's documents have pairs of numbers
        line = {"doc_id": 0, "filter": "none", "perplexity": [-12.5, 4]}
        (folder / "tasks" / "words.jsonl").write_text(json.dumps(line))
    tax = alignment_tax(*sets, here, there)
    assert tax.tasks == ("a", "b")
    assert tax.tax == pytest.approx(0.075)
    assert [(found.task, found.low is None) for found in tax.differences] == [
        ("a", False),
        ("b", False),
        ("words", True),
    ]
    assert tax_rows(tax)[-1][0] == "mean of 2"
    assert tax_rows(tax)[-1][4].startswith("-0.075 [")


def test_a_group_is_compared_over_the_documents_of_its_tasks(tmp_path: Path) -> None:
    here, there = tmp_path / "model", tmp_path / "base"
    sets = []
    for folder, values in ((here, MODEL), (there, BASE)):
        parts = [result(folder, "x", values[:8]), result(folder, "y", values[8:])]
        whole = TaskResult("group", {"acc,none": Metric(float(np.mean(values)), None, True)}, 20, 0, "1", ("x", "y"))
        sets.append(TaskResults({one.name: one for one in (*parts, whole)}, ("group",), "0.4.13"))
    [found] = alignment_tax(*sets, here, there).differences
    assert (found.task, found.difference) == ("group", pytest.approx(-0.15))
    assert found.low is not None


def test_a_table_of_one_model(tmp_path: Path) -> None:
    assert task_rows(results(result(tmp_path, "a", BASE))) == [["a", "acc", "0.750", "-", "0", "20"]]


def test_eval_shows_one_table_with_the_tax_and_keeps_it(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out, other = tmp_path / "out", tmp_path / "other"
    noisy(other)
    words = ["--tasks", "alignzoo_colours", "--include-path", str(Path(__file__).parent / "tasks"), "--out", str(out)]
    ended = call_main(["eval", "sandbox", *words, "--against", str(other)], capfd)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.count("alignzoo_colours") == 1
    assert "mean of 1" in ended.stdout
    found = read_evaluation(out)
    assert found.tasks is not None
    assert found.against is not None
    assert found.against.tax is not None
    there = read_evaluation(out / found.against.folder)
    assert there.tasks is not None
    assert found.against.tax == alignment_tax(found.tasks, there.tasks, out, out / found.against.folder)
    again = call_main(["eval", "sandbox", *words, "--precision", "bf16"], capfd)
    assert (again.returncode, "precision" in again.stderr) == (2, True), again.stderr


def noisy(folder: Path) -> None:
    """Save the sandbox model with noise on its weights."""
    import torch
    from alignzoo_sandbox import MODEL_PATH
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(MODEL_PATH)
    torch.manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.05 * torch.randn_like(weight))
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(MODEL_PATH).save_pretrained(folder)
