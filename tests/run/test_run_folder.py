"""The folder of a run: nobody else's while it runs, nothing outside it is written, and it is what a stop leaves."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from held import holding, until_step
from run_helpers import Az, MakeModel, RunFolder, Start

from alignzoo.base.files import PARTIAL
from alignzoo.base.owner import Owner
from alignzoo.runs.folder import RUN_FILES, RUN_FOLDERS
from alignzoo.train.checkpoint import step_of, whole_checkpoints

Command = Callable[..., list[str]]

ACTING = """
import os
from alignzoo.observers import RunObserver
from alignzoo.plugin import Extension, hookimpl

class Acting(RunObserver):
    def on_start(self, folder, plan, steps):
        self.folder, self.steps = folder, steps

    def on_step_end(self, step, metrics):
        if step == 1 and os.environ["DURING"] == "hang-up":
            os.kill(os.getpid(), 1)
        elif step == 1 and os.environ["DURING"] == "move":
            self.folder.rename(self.folder.with_name("moved"))

    def on_evaluation(self, step, figures):
        if step == self.steps and os.environ["DURING"] == "end":
            os.kill(os.getpid(), 15)

@hookimpl
def alignzoo_observers():
    return [Extension(kind="observer", name="acting", target=f"{__name__}:Acting", summary="acts in the middle")]
"""


@pytest.fixture
def acting(tmp_path: Path) -> list[str]:
    """The words for an observer that does, in the middle of a run, what the variable ``DURING`` says."""
    plugin = tmp_path / f"acting_{tmp_path.name}.py"
    plugin.write_text(ACTING)
    return ["--plugin", str(plugin)]


@pytest.fixture(autouse=True)
def _tiny(words: dict[str, Any], make_model: MakeModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(words, "model", str(make_model()))


def _interrupted(finished: RunFolder, folder: Path) -> Path:
    """A finished run as a crash after its last checkpoint leaves it."""
    shutil.copytree(finished.path, folder)
    shutil.rmtree(folder / "model")
    (folder / "result.json").unlink()
    return folder


def test_a_start_that_comes_second_leaves_the_first_alone(
    az: Az, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first one makes its folder after the second has found it free."""
    from alignzoo.session import inputs

    folder, tokenizer_of = tmp_path / "run", inputs.tokenizer_of

    def meanwhile(*arguments: Any) -> Any:
        folder.mkdir()
        (folder / "plan.yaml").write_text("of the first")
        return tokenizer_of(*arguments)

    monkeypatch.setattr(inputs, "tokenizer_of", meanwhile)
    ended = az(*command(folder, data=tmp_path / "absent.jsonl"))
    assert ended.returncode == 2, ended.stderr
    assert f"--out {folder} exists and is not empty" in ended.stderr
    assert (folder / "plan.yaml").read_text() == "of the first"


def test_one_run_is_resumed_once_at_a_time(
    az: Az, command: Command, start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, words = tmp_path / "run", holding(tmp_path)
    monkeypatch.setenv("HOLD_AT", "1")
    process = start(*command(folder, *words))
    until_step(folder, 1, process)
    monkeypatch.delenv("HOLD_AT")
    second = az("run", "--resume", str(folder), *words[:2])
    assert second.returncode == 2, second.stderr
    assert f"{folder} is in use by process {process.pid}" in second.stderr
    assert f"kill {process.pid}" in second.stderr
    again = az(*command(folder))
    assert again.returncode == 2
    assert f"{folder} is in use by process {process.pid}" in again.stderr
    process.kill()
    process.communicate()
    (folder / "checkpoints").mkdir(exist_ok=True)
    left = folder / "checkpoints" / f"{PARTIAL}{Owner(Owner.this().host, process.pid, '0-0').token}.x"
    left.mkdir()
    resumed = az("run", "--resume", str(folder), *words[:2])
    assert resumed.returncode == 0, resumed.stderr
    assert f"process {process.pid} has ended without releasing its lock; taking it over" in resumed.stderr
    assert not left.exists()
    assert not (folder / ".lock").exists()


def test_nothing_is_written_through_a_strangers_links(az: Az, command: Command, tmp_path: Path) -> None:
    made = az(*command(tmp_path / "made", geometry="shapo-token", **{"label-noise": 0.2}))
    assert made.returncode == 0, made.stderr
    assert {path.name for path in (tmp_path / "made").iterdir()} <= {*RUN_FILES, *RUN_FOLDERS}
    folder = _interrupted(RunFolder(tmp_path / "made"), tmp_path / "strange")
    outside = tmp_path / "outside"
    outside.mkdir()
    for name in ("geometry/selection.json", "probe/probe.json", "geometry/selection.safetensors"):
        (outside / Path(name).name).write_text("precious")
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(outside / Path(name).name)
    for name in ("model", "checkpoints"):
        (outside / name).mkdir()
        (outside / name / "config.json").write_text("precious")
    before = _texts(outside)
    for name in ("metrics.jsonl", "evaluation.json", "result.json", "env.json", "checkpoints", "model"):
        hidden = folder / f"hidden-{name}"
        if (folder / name).exists():
            (folder / name).rename(hidden)
        (folder / name).symlink_to(outside / name)
        refused = az("run", "--resume", str(folder))
        assert refused.returncode == 1, refused.stderr
        assert f"{folder / name} is a link" in refused.stderr
        (folder / name).unlink()
        if hidden.exists():
            hidden.rename(folder / name)
    resumed = az("run", "--resume", str(folder))
    assert resumed.returncode == 0, resumed.stderr
    assert _texts(outside) == before
    assert json.loads((folder / "result.json").read_text())["steps"] == 2
    assert not (folder / "probe" / "probe.json").is_symlink()


def _texts(folder: Path) -> dict[Path, str]:
    return {path: path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_a_name_that_is_not_utf8_is_refused_before_anything_is_trained(
    az: Az, command: Command, tmp_path: Path
) -> None:
    ended = az(*command(tmp_path / os.fsdecode(b"caf\xe9")))
    assert ended.returncode == 2, ended.stderr
    assert "is not UTF-8, so models cannot be saved there" in ended.stderr
    assert "loading" not in ended.stderr
    assert not [path for path in tmp_path.iterdir() if path.name.startswith("caf")]


def test_a_stop_before_the_first_step_leaves_nothing(
    az: Az, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from alignzoo.session import inputs

    folder, seen = tmp_path / "run", []

    def asked_to_stop(*_arguments: Any) -> None:
        seen.extend(path.name for path in folder.iterdir())
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(inputs, "policy_of", asked_to_stop)
    ended = az(*command(folder, "--json"))
    assert ended.returncode == 130, ended.stderr
    assert {"plan.yaml", ".lock"} <= set(seen)
    assert json.loads(ended.stdout)["error"]["kind"] == "Interrupted"
    assert not folder.exists()


def test_a_stop_after_the_last_step_can_be_resumed(
    az: Az, command: Command, acting: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    monkeypatch.setenv("DURING", "end")
    ended = az(*command(folder, *acting, "--observe", "acting"))
    assert ended.returncode == 130, ended.stderr
    assert f"resume with: alignzoo run --resume {folder} --plugin" in ended.stderr
    newest = whole_checkpoints(folder)[-1]
    assert step_of(newest) == 2
    assert {path.name for path in folder.iterdir()}.isdisjoint({"model", "result.json", ".lock"})
    monkeypatch.setenv("DURING", "nothing")
    resumed = az("run", "--resume", str(folder), *acting)
    assert resumed.returncode == 0, resumed.stderr
    assert RunFolder(folder).result["steps"] == 2


def test_when_the_terminal_is_closed_the_step_is_finished_and_saved(
    az: Az, command: Command, acting: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DURING", "hang-up")
    ended = az(*command(tmp_path / "run", *acting, "--observe", "acting"))
    assert ended.returncode == 130, ended.stderr
    assert "finishing this step and saving; press Ctrl-C again to stop immediately" in ended.stderr
    assert "stopped after step 1 of 2; state saved" in ended.stderr
    newest = whole_checkpoints(tmp_path / "run")[-1]
    assert step_of(newest) == 1


@pytest.mark.parametrize("save_every", [1, 0], ids=["in a checkpoint", "in the metrics"])
def test_a_folder_moved_from_under_a_run(
    save_every: int, az: Az, command: Command, acting: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    monkeypatch.setenv("DURING", "move")
    ended = az(*command(folder, *acting, "--observe", "acting", **{"save-every": save_every}))
    assert ended.returncode == 1, ended.stderr
    assert f"{folder} was deleted or moved while the run was writing there" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not folder.exists()
    assert (tmp_path / "moved" / "plan.yaml").is_file()
