"""``alignzoo compare`` and ``alignzoo diff`` as users call them."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from comparison_helpers import ASR, BROKEN, REFUSAL, write_run, write_sweep
from in_process import call_main

import alignzoo

Az = Callable[..., "subprocess.CompletedProcess[str]"]
WORLD = ("world2/asr/test", "world2/asr/ood", "world2/refusal/benign", "world2/refusal/borderline")


@pytest.fixture
def az(capfd: pytest.CaptureFixture[str]) -> Az:
    def run(*words: object) -> subprocess.CompletedProcess[str]:
        return call_main([str(word) for word in words], capfd)

    return run


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """12 groups of 2 seeds with 6 figures."""
    axes = {"loss": ["dpo", "simpo"], "geometry": ["plain", "sam", "shapo-token"], "robust": ["none", "drdpo"]}

    def figures(point: Any, seed: int) -> dict[str, float]:
        shift = 0.01 * (len(point["geometry"]) % 7) * (seed + 1) + 0.02 * (point["loss"] == "simpo")
        rates = dict.fromkeys(WORLD, 0.3 + shift)
        return {**rates, "world2/broken/test": 0.01 * seed, "eval/rewards/accuracies": 0.9 - shift}

    return write_sweep(tmp_path_factory.mktemp("command") / "sweep", axes, 2, figures)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """4 groups of 2 seeds with one figure."""
    axes = {"loss": ["dpo", "simpo"], "robust": ["none", "drdpo"]}
    return write_sweep(
        tmp_path_factory.mktemp("small") / "sweep",
        axes,
        2,
        lambda point, seed: {ASR: 0.1 * (seed + 1) ** (1 + len(point["robust"]) / 9)},
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real run of one step."""
    out = tmp_path_factory.mktemp("real") / "run"
    alignzoo.run({"max-steps": 1, "samples": False, "eval-pairs": 8, "batch-size": 4, "out": str(out)})
    return out


def test_twelve_groups_of_six_figures_fit_100_columns(sweep: Path, az: Az) -> None:
    printed = az("compare", sweep)
    assert (printed.returncode, printed.stderr) == (0, "")
    lines = printed.stdout.splitlines()
    assert max(map(len, lines)) <= 100
    assert (
        len([line for line in lines if line.startswith("simpo shapo-token drdpo ")]) == 6 + 4 - 1
    )  # 2 overviews; broken
    assert lines[0] == "means over seeds"
    title = "attack success, test (world2/asr/test; lower is better); 2 seeds; differences to dpo plain"
    start = lines.index(title)
    assert lines[start + 1].split("  ")[-1] == "needs"
    assert lines[start + 2].split()[:3] == ["dpo", "plain", "0.375"]
    assert "Pareto front of means, 1 is best on every axis" in lines
    assert "with 2 seeds, the Wilcoxon and permutation tests cannot give less than p = 0.5" in lines


def test_a_run_compared_with_itself_has_no_difference(trained: Path, az: Az) -> None:
    found = json.loads(az("compare", trained, trained, "--figures", "*", "--json").stdout)
    assert found["groups"] == {"": ["run", "run (2)"]}
    differences = [row["difference"] for table in found["tables"] for row in table["rows"][1:]]
    assert len(differences) == 7
    assert {one["over_seeds"]["mean"] for one in differences} == {0.0}
    printed = az("compare", trained, trained).stdout
    assert "no difference on any seed: preference accuracy\n" in printed
    assert "every group has one seed only, which proves nothing: no interval and no test" in printed


def test_a_real_run_records_its_cost(trained: Path, az: Az) -> None:
    [cost] = json.loads(az("compare", trained, "--json").stdout)["cost"]
    assert cost["seconds"]["mean"] > 0
    assert cost["wall"]["mean"] > cost["seconds"]["mean"]
    assert cost["tokens_per_second"]["mean"] > 0
    assert cost["passes"] == 1


def test_a_baseline_is_named_by_label_or_values(small: Path, az: Az) -> None:
    for name in ("simpo", "loss=simpo,robust=none"):
        [table] = json.loads(az("compare", small, "--baseline", name, "--json").stdout)["tables"]
        assert table["baseline"] == "simpo"
        assert [row["group"] for row in table["rows"] if row["difference"] is None] == ["simpo"]
    refused = az("compare", small, "--baseline", "smipo")
    assert refused.returncode == 2
    assert "did you mean simpo" in refused.stderr


def test_an_axis_can_divide_into_blocks(small: Path, az: Az) -> None:
    found = json.loads(az("compare", small, "--by", "loss", "--json").stdout)
    assert found["groups"] == {"loss=dpo": ["none", "drdpo"], "loss=simpo": ["none", "drdpo"]}
    printed = az("compare", small, "--by", "loss").stdout
    assert re.findall("^=== (.+) ===$", printed, re.M) == ["loss=dpo", "loss=simpo"]


def test_blocks_of_one_group_stand_side_by_side(tmp_path: Path, az: Az) -> None:
    sweep = write_sweep(tmp_path / "sweep", {"label-noise": [0, 0.3]}, 2, lambda point, seed: {ASR: 0.1 * seed})
    lines = az("compare", sweep).stdout.splitlines()
    assert lines[1].split() == ["label-noise=0", "label-noise=0.3"]
    assert lines[2].split()[-4:] == ["0.050", "±0.635", "0.050", "±0.635"]
    assert not any(line.startswith("===") for line in lines)


def test_csv_has_every_digit(small: Path, az: Az) -> None:
    lines = list(csv.DictReader(io.StringIO(az("compare", small, "--format", "csv").stdout)))
    assert len(lines) == 4 * (1 + 4)
    [table] = json.loads(az("compare", small, "--json").stdout)["tables"]
    row, line = table["rows"][1], lines[1]
    assert (line["figure"], line["group"], line["seeds"], line["baseline"]) == (ASR, "dpo drdpo", "0 1", "dpo")
    assert float(line["mean"]) == row["figure"]["mean"]
    assert float(line["difference_low"]) == row["difference"]["over_seeds"]["low"]
    assert float(line["holm_permutation"]) == row["difference"]["permutation"]["adjusted"]


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Runs whose figure has what Markdown and LaTeX read as markup in its name."""
    folder = tmp_path_factory.mktemp("odd_&_100%")
    figures = [{"task/a_b|c/acc*{1}~^\\,none": rate, ASR: rate} for rate in (0.125, 0.25)]
    return [write_run(folder / f"#{n}$", figures[n], seed=0, lr=0.1 + n) for n in (0, 1)]


def test_markdown_is_escaped(odd: list[Path], az: Az) -> None:
    printed = az("compare", *odd, "--format", "markdown").stdout
    assert r"**a\_b\|c, acc\*{1}~^\\ (task/a\_b\|c/acc\*{1}~^\\,none; higher is better); differences" in printed
    tables = [line for line in printed.splitlines() if line.startswith("|")]
    assert tables[:4] == [
        "|  | mean | difference |",
        "| --- | ---: | ---: |",
        "| lr=0.1 | 0.125 | - |",
        "| lr=1.1 | 0.250 | +0.125 |",
    ]


def test_latex_is_escaped(odd: list[Path], az: Az) -> None:
    printed = az("compare", *odd, "--format", "latex").stdout
    caption = r"a\_b\textbar{}c, acc$^{*}$\{1\}\textasciitilde{}\textasciicircum{}\textbackslash{} "
    assert rf"\caption{{{caption}(" in printed
    assert "lr=1.1 & 0.250 & +0.125 \\\\\n\\bottomrule" in printed
    body = [line for line in printed.splitlines() if not line.startswith(("%", "\\"))]
    assert not any(re.search(r"(?<!\\)[#%_]|±", line) for line in body)
    columns = re.findall(r"\\begin\{tabular\}\{l(r*)\}\n\\toprule\n(.*) ", printed)
    assert all(heads.count("&") == len(columns) for columns, heads in columns)


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs LaTeX with booktabs")
def test_latex_compiles(odd: list[Path], tmp_path: Path, az: Az) -> None:
    tables = az("compare", *odd, "--format", "latex").stdout
    page = f"\\documentclass{{article}}\n\\usepackage{{booktabs}}\n\\begin{{document}}\n{tables}\\end{{document}}\n"
    (tmp_path / "page.tex").write_text(page)
    words = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "page.tex"]
    compiled = subprocess.run(words, cwd=tmp_path, capture_output=True, timeout=120)
    assert compiled.returncode == 0, compiled.stdout


def test_runs_that_must_not_be_compared_are_refused_with_what_differs(tmp_path: Path, az: Az) -> None:
    clean = write_run(tmp_path / "clean", {ASR: 0.1})
    noisy = write_run(tmp_path / "noisy", {ASR: 0.3}, label_noise=0.2, loss="ipo")
    refused = az("compare", clean, noisy)
    assert refused.returncode == 2
    assert "data: label-noise is 0.0 in dpo; 0.2 in ipo" in refused.stderr
    assert "--by WORD" in refused.stderr
    anyway = az("compare", clean, noisy, "--anyway")
    assert anyway.returncode == 0
    assert "compared anyway: data: label-noise" in anyway.stdout
    by_noise = az("compare", clean, noisy, "--by", "label-noise")
    assert "dpo (label-noise=0.0)  ipo (label-noise=0.2)" in by_noise.stdout


def test_mistakes_are_explained(small: Path, tmp_path: Path, az: Az) -> None:
    for words, said in (
        ((tmp_path,), "is no run folder"),
        ((small, "--json", "--format", "csv"), "--json and --format"),
        ((small, "--figures", "sandbox/ars/*"), "no figure matches"),
        ((small, "--by", "los"), "did you mean loss"),
        ((small, "--detect", "0"), "--detect"),
    ):
        refused = az("compare", *words)
        assert refused.returncode == 2, words
        assert said in refused.stderr


def test_a_run_differs_from_itself_in_nothing(trained: Path, az: Az) -> None:
    printed = az("diff", trained, trained)
    assert printed.stdout == "same weights, figures and metrics, bit for bit\n"
    found = json.loads(az("diff", trained, trained, "--json").stdout)
    assert found["same_result"]
    assert not any(found[section] for section in ("plan", "data", "environment", "metrics", "cost"))
    whole = json.loads(az("diff", trained, trained, "--all", "--json").stdout)
    assert whole["plan"]["loss"] == {"first": "dpo", "second": "dpo"}
    assert whole["data"]["train.source"] == {"first": "sandbox", "second": "sandbox"}
    assert "versions.torch" in whole["environment"]


def test_diff_shows_what_differs(trained: Path, tmp_path: Path, az: Az) -> None:
    other = write_run(tmp_path / "other", {ASR: 0.1, REFUSAL: 0.2, BROKEN: 0.0}, loss="ipo", seed=3)
    found = json.loads(az("diff", trained, other, "--json").stdout)
    assert not found["same_result"]
    assert found["plan"]["loss"] == {"first": "dpo", "second": "ipo"}
    assert found["plan"]["seed"] == {"first": 0, "second": 3}
    assert "model" not in found["plan"]
    assert found["metrics"][ASR] == {"first": None, "second": 0.1}
    assert found["metrics"]["steps"] == {"first": 1, "second": 2}
    assert found["metrics"]["step 1 loss"]["second"] == 0.5
    printed = az("diff", trained, other).stdout
    assert re.search(r"^plan +run +other$", printed, re.M)
    assert re.search(r"^loss +dpo +ipo$", printed, re.M)
    assert max(map(len, printed.splitlines())) <= 110


def test_diff_takes_unfinished_runs(trained: Path, tmp_path: Path, az: Az) -> None:
    other = write_run(tmp_path / "other", {})
    (other / "result.json").unlink()
    (other / "metrics.jsonl").unlink()
    found = json.loads(az("diff", trained, other, "--json").stdout)
    assert found["metrics"]["status"] == {"first": "finished", "second": "not finished"}
    assert not found["same_result"]
