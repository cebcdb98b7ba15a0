"""The page of a sweep, in a real browser too."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path

import pytest
from alignzoo_report.page import _read, versions
from alignzoo_report.report_command import page_of
from report_helpers import EVIL, Read, write_sweep

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome") or ""


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    axes = {"loss": ["dpo", "simpo"], "label-noise": [0, 0.3]}
    return write_sweep(tmp_path_factory.mktemp("sweep") / "sweep", axes, 3, failed={"simpo_0.3_s1": EVIL})


@pytest.fixture(scope="module")
def page(swept: Path) -> str:
    return page_of(swept)


def test_the_page_compares_groups_and_lists_what_failed(page: str) -> None:
    read = Read(page)
    assert "11 of 12" in read.text
    assert "1 of 12 runs have no result (1 failed)" in read.text
    assert "attack success, test ↓" in read.text
    assert "Differences to dpo with tests, label-noise=0.3" in read.text
    assert "Pareto front, label-noise=0" in read.text
    assert "alignzoo sweep --max-steps 2 --grid loss=dpo,simpo --grid label-noise=0,0.3 --seeds 3" in read.text
    assert read.text.count(EVIL) == 1
    assert len(read.scripts) == 5
    values = read.charts["sandbox/asr/test-label-noise=0"]["data"]["values"]
    assert [one["g"] for one in values] == ["dpo", "simpo"]
    assert values[0]["m"] == pytest.approx(0.22, abs=0.03)


def test_blocks_of_one_group_stand_side_by_side(tmp_path: Path) -> None:
    page = Read(page_of(write_sweep(tmp_path / "sweep", {"label-noise": [0, 0.3]}, 3)))
    values = page.charts["sandbox/asr/test-"]["data"]["values"]
    assert [one["g"] for one in values] == ["label-noise=0", "label-noise=0.3"]
    assert "Differences" not in page.text


def test_one_seed_proves_nothing_and_the_page_says_so(tmp_path: Path) -> None:
    text = Read(page_of(write_sweep(tmp_path / "sweep", {"loss": ["dpo", "ipo"]}, 1))).text
    assert "one seed" in text


def test_a_sweep_of_which_nothing_is_finished_has_a_page(tmp_path: Path) -> None:
    folder = write_sweep(tmp_path / "sweep", {"loss": ["dpo"]}, 1, failed={"dpo_s0": "out of memory"})
    text = Read(page_of(folder)).text
    assert "0 of 1" in text
    assert "out of memory" in text


def test_the_chart_library_is_the_one_that_was_fetched() -> None:
    for name, facts in versions().items():
        text = _read("assets", f"{name}.js")
        assert hashlib.sha256(text.encode()).hexdigest() == facts["sha256"]
        assert "</script" not in text.lower()
        assert "<!--" not in text
        assert "Interactive Data Lab" in _read("assets", f"{name}.LICENSE")


@pytest.mark.skipif(not CHROMIUM, reason="needs chromium")
def test_a_browser_draws_every_chart_without_an_error_or_a_request(page: str, tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    file.write_text(page)
    words = ["--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--virtual-time-budget=5000"]
    profile = f"--user-data-dir={tmp_path / 'profile'}"
    shown = subprocess.run(
        [CHROMIUM, *words, profile, "--dump-dom", file.as_uri()], capture_output=True, text=True, timeout=120
    )
    assert "CONSOLE" not in shown.stderr
    read = Read(shown.stdout)
    assert len(read.all("svg")) == len(read.charts) > 6
    assert EVIL in read.text


@pytest.mark.slow
def test_120_runs_fit_into_3_mb(tmp_path: Path) -> None:
    axes = {
        "loss": ["dpo", "simpo"],
        "geometry": ["plain", "sam", "shapo-token"],
        "robust": ["none", "drdpo"],
        "label-noise": [0, 0.3],
    }
    assert len(page_of(write_sweep(tmp_path / "sweep", axes, 5, steps=400)).encode()) <= 3_000_000
