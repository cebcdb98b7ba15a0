"""The page of a run: one file, no request, everything that others wrote as text."""

from __future__ import annotations

import itertools
import json
import shlex
import shutil
from pathlib import Path

import pytest
from alignzoo_report.curves import POINTS, curves_of, displacement, thinned
from alignzoo_report.report_command import page_of
from alignzoo_report.words import command_of
from in_process import call_main
from report_helpers import EVIL, Read, finish_run, log_steps, start_run

from alignzoo.records import read_run

STEPS, SIZE = 3, 4


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real, short run with noise and a wrapper."""
    from alignzoo import run

    folder = tmp_path_factory.mktemp("report") / "run"
    words = {"loss": "dpo", "robust": "drdpo", "label-noise": 0.5, "max-steps": STEPS, "batch-size": SIZE}
    quick = {"model": "sandbox", "data": "sandbox", "samples": False, "eval-pairs": 8, "show-samples": 2}
    run({**words, **quick, "out": str(folder)})
    return folder


@pytest.fixture
def changed(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "run", ignore=shutil.ignore_patterns("model", "checkpoints")))


def test_a_run_keeps_its_last_rows_with_losses_weights_and_flips(trained: Path) -> None:
    rows = [json.loads(line).get("row") for line in (trained / "examples.jsonl").read_text().splitlines()]
    assert len(rows) == STEPS * SIZE
    noise = [json.loads(line).get("row_id") for line in (trained / "label_noise.jsonl").read_text().splitlines()]
    assert {row["row_id"] for row in rows if row["flipped"]} == {row["row_id"] for row in rows} & set(noise)
    assert [row["loss"] for row in rows] == sorted((row["loss"] for row in rows), reverse=True)
    metrics = list(read_run(trained).metrics())
    for line in metrics:
        weights = [row["weight"] for row in rows if row["step"] == line["step"]]
        assert sum(weights) == pytest.approx(SIZE, rel=1e-4)
        effective = sum(weights) ** 2 / sum(weight**2 for weight in weights)
        assert effective == pytest.approx(line["robust/effective_pairs"], rel=1e-4)
    assert all(row["prompt"] and len(row["responses"]) == 2 for row in rows)


def test_the_page_tells_plan_data_curves_examples_and_how_to_repeat_it(trained: Path) -> None:
    page = Read(page_of(trained))
    titles = ["Plan", "Data", "Training", "Examples", "Evaluation", "Environment", "Reproduce"]
    assert [one["href"] for one in page.all("a")][1:] == [f"#{one['id']}" for one in page.all("section")]
    assert all(title in page.text for title in titles)
    assert "50% of the training labels are flipped on purpose" in page.text
    assert "Flipped labels against weights" in page.text
    assert "Answers that changed most" in page.text
    assert {"loss", "rewards-margins", "logps-chosen", "rewards-chosen", "weights"} <= set(page.charts)
    start = page.charts["loss"]["data"]["values"]
    assert {"s": "held-out", "x": 0, "y": pytest.approx(0.6931, abs=1e-3), "e": 1} in start


def test_the_page_needs_nothing_else(trained: Path) -> None:
    text = page_of(trained)
    page = Read(text)
    [policy] = [one["content"] for one in page.all("meta") if one.get("http-equiv") == "Content-Security-Policy"]
    assert policy == "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"
    links = [one.get(name) for _, one in page.tags for name in ("src", "href", "action") if one.get(name)]
    assert all(str(link).startswith(("#", "data:")) for link in links)
    assert len(text.encode()) < 1_200_000


def test_the_page_can_be_read_without_seeing_it(trained: Path) -> None:
    page = Read(page_of(trained))
    tags = [tag for tag, _ in page.tags]
    assert all(tags.count(tag) == 1 for tag in ("header", "nav", "main", "footer", "h1"))
    assert tags.count("table") == tags.count("caption")
    assert all(one.get("scope") in ("col", "row") for one in page.all("th"))
    levels = [int(tag[1]) for tag in tags if tag in ("h1", "h2", "h3", "h4")]
    assert all(after - before <= 2 for before, after in itertools.pairwise(levels))
    ids = [one["id"] for _, one in page.tags if one.get("id")]
    assert len(ids) == len(set(ids))
    skip = page.all("a")[0]
    assert skip["class"] == "skip"
    assert str(skip["href"]).removeprefix("#") in ids
    plots = [one for one in page.all("div") if one.get("class") == "plot"]
    assert plots
    assert all(one["role"] == "img" and one["aria-label"] for one in plots)
    assert all(one["tabindex"] == "0" and one["aria-label"] for one in page.all("div") if one.get("class") == "scroll")


def test_what_a_model_wrote_is_text(changed: Path) -> None:
    clean = len(Read(page_of(changed)).scripts)
    row = {"row_id": 1, "step": 1, "loss": 9.0, "weight": 1.0, "flipped": True, "prompt": EVIL, "responses": [EVIL] * 2}
    answer = {"set": EVIL, "prompt": EVIL, "before": EVIL, "after": EVIL, "similarity": 0.0}
    (changed / "examples.jsonl").write_text(f"{json.dumps({'row': row})}\n{json.dumps({'answer': answer})}\n")
    with (changed / "metrics.jsonl").open("a") as lines:
        lines.write(json.dumps({"step": STEPS + 1, f"loss/{EVIL}": 1.0}) + "\n")
    page = Read(page_of(changed))
    assert len(page.scripts) == clean
    assert page.text.count(EVIL) >= 6
    assert page.all("b") == []
    assert any(EVIL in json.dumps(chart, ensure_ascii=False) for chart in page.charts.values())


def test_the_command_repeats_the_plan(trained: Path, capfd: pytest.CaptureFixture[str]) -> None:
    record = read_run(trained)
    words = shlex.split(command_of(record))
    assert words[:2] == ["alignzoo", "run"]
    plan = json.loads(call_main([*words[1:], "--dry-run", "--json"], capfd).stdout)
    values = {word: one["value"] for word, one in plan["settings"].items() if word != "out"}
    assert values == {word: one["value"] for word, one in record.plan["settings"].items() if word != "out"}
    assert plan["sentence"] == record.sentence


def test_a_run_that_has_not_taken_a_step_has_a_page(tmp_path: Path) -> None:
    page = Read(page_of(start_run(tmp_path / "run")))
    assert "This run has not finished: 0 steps are logged" in page.text
    assert "No step has been logged yet" in page.text
    assert "The run has not read its data yet" in page.text
    assert page.scripts == []


def test_a_stopped_run_has_the_curves_of_the_steps_it_took(tmp_path: Path) -> None:
    folder = start_run(tmp_path / "run")
    log_steps(folder, 5)
    with (folder / "metrics.jsonl").open("a") as lines:
        lines.write('{"step": 6, "loss"')
    page = Read(page_of(folder))
    assert "5 steps are logged" in page.text
    assert page.charts["loss"]["data"]["values"][-1]["x"] == 5


def test_a_long_curve_is_thinned_to_means_of_equal_spans() -> None:
    points = [(float(step), float(step)) for step in range(1, 1001)]
    found = thinned(points)
    assert len(found) <= POINTS
    assert found[0] == (7.0, 4.0)
    assert found[-1][0] == 1000
    assert thinned(points[:POINTS]) == points[:POINTS]


def test_displacement_is_told_where_both_responses_lose(tmp_path: Path) -> None:
    start = {"eval/logps/chosen": -20.0, "eval/logps/rejected": -20.0}
    assert displacement(start, {"eval/logps/chosen": -19.0, "eval/logps/rejected": -25.0}) is None
    lost = {"eval/logps/chosen": -23.0, "eval/logps/rejected": -25.0}
    assert "lost 3.00 nats" in (displacement(start, lost) or "")
    folder = start_run(tmp_path / "run")
    log_steps(folder, 2)
    page = Read(page_of(finish_run(folder, lost, start)))
    assert "Likelihood displacement" in page.text
    assert curves_of(read_run(folder)).held_out("logps/chosen") == [(0, -20.0), (2, -23.0)]


def test_the_command_writes_one_file_and_says_where(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = start_run(tmp_path / "run")
    told = call_main(["report", str(folder), "--json"], capfd)
    assert told.returncode == 0
    found = json.loads(told.stdout)
    assert Path(found["out"]) == folder / "report.html"
    assert found["bytes"] == (folder / "report.html").stat().st_size
    elsewhere = call_main(["report", str(tmp_path)], capfd)
    assert elsewhere.returncode == 2
    assert "is neither a run nor a sweep folder" in elsewhere.stderr
    nowhere = call_main(["report", str(folder), "--out", str(tmp_path / "no" / "x.html")], capfd)
    assert nowhere.returncode == 2
    assert "does not exist" in nowhere.stderr
