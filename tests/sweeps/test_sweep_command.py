"""What ``alignzoo sweep`` refuses before anything runs, and what it says of a sweep."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import Here

from alignzoo.plan.recipe import Layer
from alignzoo.records.sweep import read_sweep
from alignzoo.sweeps.folder import sweep_content, write_failure, write_sweep
from alignzoo.sweeps.spec import Spec, expand


def _started(folder: Path, **words: object) -> None:
    """A sweep that has been started and has run nothing yet."""
    layers = [Layer("flag", {"lr": "1e-4"})]
    axes, cells = expand(Spec(layers, {"loss": ["dpo", "simpo"]}, seeds=(0, 1)))
    folder.mkdir()
    write_sweep(folder, sweep_content(layers, axes, cells, {}, keep_models=False, **words))


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--grid", "los=dpo"], 2, "did you mean loss?"),
        (["--grid", "loss=dpo,simpoo"], 2, "did you mean simpo"),
        (["--grid", "lr=fast,0.1"], 2, "lr=fast: --lr: "),
        (["--grid", "geometry=plain,sam", "--geometry.sam.roh", "1"], 2, "rho"),
        (["--grid", "loss=dpo,sft", "--grid", "robust=none,cdpo"], 3, "loss=sft robust=cdpo"),
        (["--seeds", "3", "--seed", "1"], 2, "--seeds 3,4,5"),
        (["--seeds", "2", "--launcher", "slrum"], 2, "did you mean slurm?"),
        (["--seeds", "2", "--launcher-option", "partition=gpu"], 2, "local has no option partition"),
        (["--seeds", "2", "--launcher", "slurm"], 2, "no Slurm here"),
        (["--seeds", "2", "sandbox"], 2, "name the recipe first"),
        (["nothing", "--seeds", "2"], 2, "no recipe 'nothing'"),
        (["sacpo", "--seeds", "2", "--data", "sandbox", "--model", "sandbox"], 2, "several stages"),
        (["--seeds", "2", "--data", "nowhere.jsonl", "--model", "sandbox"], 2, "nowhere.jsonl"),
        (["--resume", "sweep", "--lr", "1"], 2, "--resume cannot be combined with --lr"),
        (["--resume", "nowhere"], 2, "no sweep folder"),
    ],
)
def test_mistakes_are_refused_before_anything_runs(
    here: Here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], code: int, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    ended = here(*words, *([] if "--resume" in words else ["--out", "sweep"]))
    assert (ended.returncode, ended.stdout) == (code, "")
    assert said in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not (tmp_path / "sweep" / "sweep.yaml").exists()


def test_another_sweep_in_the_same_folder_is_refused_with_what_differs(here: Here, tmp_path: Path) -> None:
    folder = tmp_path / "sweep"
    _started(folder)
    ended = here("--grid", "loss=dpo,ipo", "--seeds", "3", "--lr", "1e-5", "--warmup-steps", "2", "--out", str(folder))
    assert ended.returncode == 2
    for words in (
        "lr was 1e-4 and is 1e-5",
        "warmup-steps was not set and is 2",
        "loss was ['dpo', 'simpo'] and is ['dpo', 'ipo']",
        "seeds was [0, 1] and is [0, 1, 2]",
    ):
        assert words in ended.stderr
    assert read_sweep(folder).seeds == (0, 1)


def test_a_folder_with_something_else_is_refused(here: Here, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    ended = here("--seeds", "2", "--out", str(tmp_path))
    assert (ended.returncode, "not empty" in ended.stderr) == (2, True)


def test_a_sweep_that_is_done_runs_nothing_and_lists_what_failed(here: Here, tmp_path: Path) -> None:
    folder = tmp_path / "sweep"
    _started(folder)
    sweep = read_sweep(folder)
    for cell in sweep.cells:
        write_failure(sweep, cell, "the loss is not finite", "lower --lr", 1)
    ended = here("--grid", "loss=dpo,simpo", "--seeds", "2", "--lr", "1e-4", "--out", str(folder))
    assert ended.returncode == 1
    assert "failed: loss=simpo seed 1: the loss is not finite\n    lower --lr" in ended.stdout
    assert f"alignzoo sweep --resume {folder} --retry-failed" in ended.stdout
    told = here("--resume", str(folder), "--json")
    facts = json.loads(told.stdout)
    assert (told.returncode, facts["failed"], facts["cells"][0]["status"]) == (1, 4, "failed")
    assert facts["cells"][0]["error"] == {"error": "the loss is not finite", "hint": "lower --lr", "exit_code": 1}


def test_a_dry_run_states_runs_cost_and_disk(here: Here, tmp_path: Path) -> None:
    words = ("--grid", "geometry=plain,sam", "--seeds", "2", "--max-steps", "40", "--workers", "2")
    ended = here("sandbox", *words, "--dry-run", "--json", "--out", str(tmp_path / "sweep"))
    facts = json.loads(ended.stdout)
    assert [cell["name"] for cell in facts["cells"]] == [
        f"geometry-{name}_seed-{seed}" for seed in (0, 1) for name in ("plain", "sam")
    ]
    plain, sam = facts["cells"][:2]
    assert (plain["steps"], plain["passes"], sam["passes"]) == (40, 1, 2)
    assert sam["seconds"] == pytest.approx(2 * plain["seconds"], rel=0.1)
    assert facts["seconds"] == pytest.approx(plain["seconds"] + sam["seconds"])  # four runs, two at a time
    assert 4 * 100_000 < facts["disk"] < facts["disk_while_running"]
    assert not (tmp_path / "sweep").exists()
