"""What a run says before it loads anything, what ``--dry-run`` looks for, and runs without generated answers."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from cli_helpers import Az
from heard import Heard

from alignzoo.plan.plan import Plan
from alignzoo.plan.recipe import Layer
from alignzoo.plan.resolve import resolve
from alignzoo.runs.introduction import introduction
from alignzoo.runs.outcome import report_outcome


def introduced(**words: object) -> dict[str, str]:
    """The facts of an introduction by their names, lines joined."""
    values = {name.replace("__", "."): value for name, value in words.items()}
    plan = resolve([Layer("flag", {key.replace("_", "-"): value for key, value in values.items()})])
    assert isinstance(plan, Plan)
    lines = introduction(plan, Path("runs/here"))
    assert max(map(len, lines)) <= 80
    facts: dict[str, str] = {}
    for line in lines:
        name, text = line[:10].strip() or list(facts)[-1], line[10:]
        facts[name] = f"{facts[name]} {text}" if name in facts else text
    return facts


def test_a_run_introduces_itself() -> None:
    facts = introduced(robust=["drdpo"], geometry="sam", model="org/m", data="pairs.jsonl", max_steps=7, dropout=True)
    assert list(facts) == ["loss", "robust", "geometry", "model", "data", "steps", "settings", "seed", "folder"]
    assert facts["loss"].startswith("dpo: DPO: logistic loss")
    assert "(beta 0.1)" in facts["loss"]
    assert facts["model"] == "org/m"
    assert facts["steps"] == "7 of 32 rows, 4 rows per forward pass"
    assert facts["settings"] == "lr 1e-06, dropout"
    assert facts["folder"] == "runs/here"


def test_an_introduction_names_the_options_that_were_given() -> None:
    facts = introduced(loss="ipo", loss__logps="sum", epochs=2, tokens_per_micro_batch=900, packing=False)
    assert "logps sum" in facts["loss"]
    assert facts["steps"] == "at most 120 of 16 rows, at most 900 tokens per forward pass"
    assert "no packing" in facts["settings"]


def test_an_introduction_counts_passes_in_rows_and_cuts_long_lists_of_options() -> None:
    facts = introduced(loss="kto", geometry="shapo-token", model="org/m", data="pairs.jsonl")
    assert facts["steps"] == "1 pass over the training rows, steps of 32 rows, 4 rows per forward pass"
    assert "…" not in facts["loss"]
    assert facts["geometry"].endswith(", …)")
    assert facts["geometry"].count(",") == 4


def test_the_last_table_shows_the_terms_of_a_mixture() -> None:
    heard = Heard()
    before = {"eval/loss": 1.5, "eval/loss/dpo/value": 0.5, "eval/loss/sft/value": 10.0, "eval/loss/kto/kl": 3.0}
    report_outcome(before, {**before, "eval/loss/sft/value": 8.0}, heard)
    assert [tuple(row) for row in heard.tables["held-out pairs"]] == [
        ("objective", "1.5000", "1.5000"),
        ("  term dpo", "0.5000", "0.5000"),
        ("  term sft", "10.0000", "8.0000"),
    ]


def test_it_does_so_before_anything_heavy_is_imported(tmp_path: Path) -> None:
    code = """
import sys
import alignzoo
from alignzoo.report import Reporter

class First(Reporter):
    def note(self, text):
        print(text)
        if text.startswith("folder"):
            sys.exit("torch is there" if "torch" in sys.modules else 0)

alignzoo.run({"robust": ["drdpo"]}, report=First())
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "folder    runs/dpo-drdpo-plain-20" in ended.stdout
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--model", "./absent", "--data", "sandbox"], "--model ./absent: no such folder"),
        (["--model", "absent.gguf", "--data", "sandbox"], "--model absent.gguf: no such file"),
        (["--model", "sandbox", "--data", "absent.jsonl"], "--data absent.jsonl: no such file or folder"),
        (["--model", "sandbox", "--data", "sandbox", "--optimizer", "adamq"], "--optimizer adamq: torch.optim has no"),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else "",
)
def test_dry_run_says_what_cannot_be_found(
    words: list[str], said: str, az_here: Az, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ended = az_here("run", *words, "--dry-run")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith(f"error: {said}")


def test_dry_run_says_all_that_cannot_be_found(az_here: Az) -> None:
    ended = az_here("run", "--model", "./absent", "--data", "./gone", "--eval-data", "./lost", "--dry-run")
    assert ended.returncode == 2
    assert [word for word in ("./absent", "--data gone", "--eval-data lost") if word not in ended.stderr] == []


def test_dry_run_does_not_look_up_the_hub(az_here: Az) -> None:
    ended = az_here("run", "--model", "org/model", "--data", "org/pairs:part", "--optimizer", "adamw8bit", "--dry-run")
    assert ended.returncode == 0
    assert ended.stderr.splitlines() == [
        "--model org/model is treated as a hub id; not checked",
        "--data org/pairs:part is treated as a hub id; not checked",
        "--optimizer adamw8bit needs CUDA and bitsandbytes; not checked",
        "loss dpo reads pairs: data of pairs or ranked rows",
    ]


def test_no_samples_generates_none(az_here: Az, tmp_path: Path) -> None:
    words = ["--no-samples", "--max-steps", "1", "--eval-pairs", "4", "--no-reference-cache", "--batch-size", "2"]
    ended = az_here("run", *words, "--micro-batch-size", "2", "--out", str(tmp_path / "run"))
    assert ended.returncode == 0
    assert "answering" not in ended.stderr
    figures = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    assert [name for name in figures["after"] if name.startswith("sandbox/")] == []


@pytest.mark.parametrize(
    "words",
    [
        ["--no-samples", "--judge", "alignzoo:sandbox"],
        ["--no-samples", "--model", "sandbox", "--data", "pairs.jsonl"],
    ],
    ids=" ".join,
)
def test_no_samples_where_it_does_nothing(words: list[str], az_here: Az) -> None:
    ended = az_here("run", *words, "--dry-run")
    assert ended.returncode == 2
    assert "has no effect here" in ended.stderr
