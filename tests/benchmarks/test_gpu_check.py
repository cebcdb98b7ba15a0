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


def test_parts_on_the_cpu_give_tables_and_a_file(tmp_path: Path) -> None:
    file = tmp_path / "check.json"
    words = [str(GPU / "check.sh"), "--cpu", "--only", "tests", "8b-alignzoo", "8b-trl", "--json", str(file)]
    environment = {**os.environ, "PYTHON": sys.executable, "WHEELS": str(tmp_path)}
    ended = subprocess.run(words, capture_output=True, text=True, env=environment, timeout=500)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    found = json.loads(file.read_text())
    assert [part["part"] for part in found["parts"]] == ["tests", "8b-alignzoo", "8b-trl", "same-work"]
    assert [part["status"] for part in found["parts"]] == ["ok"] * 4
    assert found["versions"]["torch"]
    steps = found["parts"][1]["figures"]["long+checkpointing"]
    assert len(steps["seconds"]) == 2
    assert steps["losses"][0] == pytest.approx(0.6931, abs=1e-4)
    assert (
        f"| 8b-trl | ok | {found['parts'][2]['seconds']:.0f} | {found['parts'][2]['figures']['shown']} |"
        in ended.stdout
    )
    assert "| 8B, long, checkpointing: unique tokens/s over TRL's | " in ended.stdout


def part(check: ModuleType, *words: str, seconds: int = 60) -> Any:
    return check.Part("one", words, "about it", seconds)


def test_a_part_that_fails_or_hangs_or_has_no_time_left_is_an_outcome(
    check: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "parts.py").write_text(
        "import subprocess, sys, time\n"
        'print(\'{"shown": "so far"}\', flush=True)\n'
        "if sys.argv[1] != 'hang':\n"
        "    sys.exit('it broke')\n"
        "subprocess.run([sys.executable, '-c', 'import time; time.sleep(600)'], start_new_session=True)\n"
    )
    monkeypatch.setattr(check, "HERE", tmp_path)
    deadline = time.monotonic() + 100
    failed = check.run_part(part(check, "fail"), cpu=False, deadline=deadline, folder=tmp_path)
    assert (failed.status, failed.figures) == ("failed", {"shown": "so far"})
    assert "it broke" in failed.output
    hung = check.run_part(part(check, "hang", seconds=3), cpu=False, deadline=deadline, folder=tmp_path)
    assert (hung.status, hung.figures) == ("timed out", {"shown": "so far"})
    late = check.run_part(part(check, "fail"), cpu=False, deadline=time.monotonic(), folder=tmp_path)
    assert late.status == "not reached"
    table = check.goals.parts_table([vars(outcome) for outcome in (failed, hung, late)])
    assert "| one | timed out | 3 | so far |" in table
    assert "| one | not reached | 0 | about it |" in table


def test_what_an_earlier_check_has_is_kept_and_the_rest_is_run(
    check: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "parts.py").write_text("import sys\nsys.exit(sys.argv[1] == 'fail')\n")
    monkeypatch.setattr(check, "HERE", tmp_path)
    monkeypatch.setattr(check, "PARTS", (part(check, "fail"), check.Part("two", ("pass",), "about", 60, alone=True)))
    file, again = tmp_path / "first.json", tmp_path / "second.json"

    def statuses(*words: str) -> tuple[bool, dict[str, str]]:
        monkeypatch.setattr(sys, "argv", ["check.py", *words])
        with pytest.raises(SystemExit) as ended:
            check.main()
        written = json.loads(Path(words[-1]).read_text())
        return bool(ended.value.code), {one["part"]: one["status"] for one in written["parts"]}

    late = tmp_path / "late.json"
    assert statuses("--limit", "1", "--json", str(late)) == (True, {"one": "not reached", "two": "not reached"})
    assert f"cut: one, two; resume with: benchmarks/gpu/check.sh --rest {late}" in capsys.readouterr().out
    assert statuses("--json", str(file)) == (True, {"one": "failed", "two": "ok"})
    assert "cut:" not in capsys.readouterr().out
    ended = json.loads(file.read_text())
    ended["parts"][1]["about"] = "not run again"
    file.write_text(json.dumps(ended))
    assert statuses("--rest", str(file), "--json", str(again)) == (True, {"one": "failed", "two": "ok"})
    assert json.loads(again.read_text())["parts"][1]["about"] == "not run again"
    assert statuses("--show", str(again), "--json", str(again)) == (True, {"one": "failed", "two": "ok"})


def test_the_gpu_parts_say_that_there_is_no_gpu() -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is one")
    ended = subprocess.run([sys.executable, str(GPU / "parts.py"), "tests"], capture_output=True, text=True)
    assert ended.returncode == 1
    assert "no CUDA device: give --cpu" in ended.stderr
