"""The GPU check, tried on the CPU: parts run, fail and run out of time without taking the others with them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

GPU = Path(__file__).parents[2] / "benchmarks" / "gpu"


@pytest.fixture
def check(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(GPU)
    return __import__("check")


def test_two_parts_on_the_cpu_give_a_table_and_a_file(tmp_path: Path) -> None:
    file = tmp_path / "check.json"
    words = [str(GPU / "check.sh"), "--cpu", "--only", "tests", "1b-packed", "--json", str(file)]
    environment = {**os.environ, "PYTHON": sys.executable, "WHEELS": str(tmp_path)}
    ended = subprocess.run(words, capture_output=True, text=True, env=environment, timeout=500)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    found = json.loads(file.read_text())
    assert [part["status"] for part in found["parts"]] == ["ok", "ok"]
    assert found["versions"]["torch"]
    steps = found["parts"][1]["figures"]
    assert len(steps["seconds"]) == 2
    assert steps["losses"][0] == pytest.approx(0.6931, abs=1e-4)
    assert f"| 1b-packed | ok | {found['parts'][1]['seconds']:.0f} | {steps['shown']} |" in ended.stdout


def part(check: ModuleType, *words: str, seconds: int = 60) -> Any:
    return check.Part("one", words, "about it", seconds)


def test_a_part_that_fails_or_hangs_or_has_no_time_left_is_an_outcome(
    check: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "parts.py").write_text(
        "import sys, time\n"
        'print(\'{"shown": "so far"}\', flush=True)\n'
        "time.sleep(600) if sys.argv[1] == 'hang' else sys.exit('it broke')\n"
    )
    monkeypatch.setattr(check, "HERE", tmp_path)
    deadline = time.monotonic() + 100
    failed = check.run_part(part(check, "fail"), cpu=False, deadline=deadline)
    assert (failed.status, failed.figures) == ("failed", {"shown": "so far"})
    assert "it broke" in failed.output
    hung = check.run_part(part(check, "hang", seconds=3), cpu=False, deadline=deadline)
    assert (hung.status, hung.figures) == ("timed out", {"shown": "so far"})
    late = check.run_part(part(check, "fail"), cpu=False, deadline=time.monotonic())
    assert late.status == "not reached"
    assert "| one | timed out |" in check.table([failed, hung, late])


def test_the_gpu_parts_say_that_there_is_no_gpu() -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is one")
    ended = subprocess.run([sys.executable, str(GPU / "parts.py"), "tests"], capture_output=True, text=True)
    assert ended.returncode == 1
    assert "no CUDA device: give --cpu" in ended.stderr
