"""best-margin keeps the best evaluation of a run, also over a resume."""

from __future__ import annotations

import json
from pathlib import Path

from alignzoo_example.best_margin import ACCURACY, FILE, MARGIN, BestMargin


def started(folder: Path) -> BestMargin:
    observer = BestMargin()
    observer.on_start(folder, {}, 10)
    return observer


def kept(folder: Path) -> dict[str, float]:
    return json.loads((folder / FILE).read_text(encoding="utf-8"))


def test_the_best_evaluation_is_kept(tmp_path: Path) -> None:
    observer = started(tmp_path)
    for step, margin in [(0, 0.0), (4, 1.5), (8, 0.7)]:
        observer.on_evaluation(step, {MARGIN: margin, ACCURACY: 0.5 + margin / 10, "eval/loss": 0.6})
    assert kept(tmp_path) == {"step": 4, "margin": 1.5, "accuracy": 0.65}
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


def test_a_resumed_run_goes_on_with_what_is_there(tmp_path: Path) -> None:
    started(tmp_path).on_evaluation(4, {MARGIN: 1.5})
    again = started(tmp_path)
    again.on_evaluation(6, {MARGIN: 1.0})
    assert kept(tmp_path)["step"] == 4
    again.on_evaluation(8, {MARGIN: 2.0})
    assert kept(tmp_path) == {"step": 8, "margin": 2.0, "accuracy": None}


def test_without_a_margin_nothing_is_written(tmp_path: Path) -> None:
    started(tmp_path).on_evaluation(0, {"sandbox/attack_success": 1.0})
    assert not list(tmp_path.iterdir())
