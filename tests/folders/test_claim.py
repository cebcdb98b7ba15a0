"""A folder belongs to one process at a time, and only what that process made is removed."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pytest

from alignzoo.base.disk import file_problem, remedy
from alignzoo.base.lock import LOCK_FILE
from alignzoo.base.owner import Owner
from alignzoo.errors import AlignzooError, UsageError
from alignzoo.plan.recipe import Layer
from alignzoo.plan.resolve import require, resolve
from alignzoo.report import Reporter
from alignzoo.runs import claim as claims
from alignzoo.runs import folder as run_folder
from alignzoo.runs.claim import claim_default, claim_new, claim_run, new_folder
from alignzoo.runs.course import Course

CLAIM = """
import sys
from pathlib import Path
from alignzoo.errors import UsageError
from alignzoo.report import Reporter
from alignzoo.runs.claim import claim_new
print("ready", flush=True)
sys.stdin.readline()
try:
    claim_new(Path(sys.argv[1]), Reporter())
    print("claimed", flush=True)
except UsageError as error:
    print(error.message, flush=True)
sys.stdin.readline()
"""


class Listening(Reporter):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


def claiming(folder: Path) -> subprocess.Popen[str]:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    return subprocess.Popen([sys.executable, "-c", CLAIM, str(folder)], text=True, **pipes)  # type: ignore[call-overload, no-any-return]


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def go_on(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


@pytest.mark.parametrize("there", [True, False], ids=["empty", "absent"])
def test_of_processes_that_start_together_one_gets_the_folder(tmp_path: Path, there: bool) -> None:
    folder = tmp_path / "out"
    if there:
        folder.mkdir()
    processes = [claiming(folder) for _ in range(4)]
    assert {said(process) for process in processes} == {"ready"}
    for process in processes:
        go_on(process)
    answers = [said(process) for process in processes]
    winner = processes[answers.index("claimed")]
    others = [answer for answer in answers if answer != "claimed"]
    assert len(others) == 3
    assert all(answer.startswith(f"{folder} is in use by process {winner.pid}, since 2") for answer in others)
    assert [path.name for path in folder.iterdir()] == [LOCK_FILE]
    for process in processes:
        go_on(process)
        process.communicate()


def test_the_lock_of_a_killed_process_is_taken_over(tmp_path: Path) -> None:
    killed = claiming(tmp_path / "out")
    said(killed)
    go_on(killed)
    assert said(killed) == "claimed"
    killed.kill()
    killed.communicate()
    heard = Listening()
    claim = claim_new(tmp_path / "out", heard)
    assert heard.notes == [
        f"{tmp_path / 'out'}: process {killed.pid} has ended without releasing its lock; taking it over"
    ]
    claim.release()
    assert list((tmp_path / "out").iterdir()) == []


def test_the_lock_of_another_machine_is_refused(tmp_path: Path) -> None:
    path = tmp_path / LOCK_FILE
    facts = {"owner": Owner("0" * 8, 1, "0-0").token, "machine": "node7", "since": "2026-01-02 03:04:05 +0000"}
    path.write_text(json.dumps(facts))
    with pytest.raises(UsageError, match=r"in use by process 1 on node7, since 2026-01-02") as refusal:
        claim_run(tmp_path, Reporter())
    assert refusal.value.hint == f"if that process has ended, delete {path}"
    assert json.loads(path.read_text()) == facts


@pytest.mark.parametrize("kind", ["empty", "zeros", "list", "link", "pipe"])
def test_a_lock_that_says_nothing_is_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "run" / LOCK_FILE
    path.parent.mkdir()
    if kind == "link":
        (tmp_path / "outside").write_text("precious")
        path.symlink_to(tmp_path / "outside")
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.write_bytes({"empty": b"", "zeros": bytes(100), "list": b"[]"}[kind])
    with pytest.raises(UsageError, match="does not say which process") as refusal:
        claim_run(path.parent, Reporter())
    assert refusal.value.hint == f"delete {path} if none does"
    assert os.path.lexists(path)


def test_without_a_name_a_run_gets_the_folder_that_it_introduced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock moves on between the introduction and the claim; a number follows where the name is taken."""

    class Moving(datetime):
        seconds = 0

        @classmethod
        def now(cls, tz: object = None) -> Moving:
            cls.seconds += 1
            return cls(2026, 1, 2, 3, 4, cls.seconds)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run_folder, "datetime", Moving)
    plan = require(resolve([]))
    heard = Listening()
    run = Course(plan, heard, None)
    run.folder.take(run.accelerator, plan)
    assert str(run.folder.path) == "runs/dpo-plain-20260102-030401"
    assert [note for note in heard.notes if note.startswith("folder")] == [f"folder    {run.folder.path}"]
    assert not [note for note in heard.notes if "another run" in note]
    Moving.seconds = 0
    second = Course(plan, heard, None)
    second.folder.take(second.accelerator, plan)
    assert heard.notes[-1] == f"another run uses that folder; using {run.folder.path}-2"
    assert claim_default(run.folder.path, heard).folder == Path(f"{run.folder.path}-3")


def test_a_failure_removes_what_was_made_and_no_more(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()

    def fail(folder: Path) -> None:
        with new_folder(folder, Reporter(), ["probe"]):
            (folder / "probe").mkdir()
            (folder / "probe" / "probe.json").touch()
            if folder.name == "shared":
                (folder / "foreign").touch()
            raise KeyboardInterrupt

    for name in ("there", "absent", "shared"):
        with pytest.raises(KeyboardInterrupt):
            fail(tmp_path / name)
    assert sorted(tmp_path.rglob("*")) == [tmp_path / "shared", tmp_path / "shared" / "foreign", tmp_path / "there"]


def test_a_name_too_long_is_a_mistake_of_the_user(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be written: File name too long"):
        claim_new(tmp_path / ("x" * 300), Reporter())


def test_a_name_that_models_cannot_be_saved_under_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    for claim in (claim_new, claim_run):
        with pytest.raises(UsageError, match=r"caf\\udce9' is not UTF-8, so models cannot be saved there"):
            claim(folder, Reporter())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("when", ["claiming", "writing the plan"])
def test_a_disk_that_is_full_at_the_start(when: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(*{"claiming": (claims, "lock"), "writing the plan": (run_folder, "write_plan")}[when], full)
    folder = tmp_path / "run"
    plan = require(resolve([Layer("flag", {"out": str(folder)})]))
    run = Course(plan, Reporter(), None)
    monkeypatch.setattr(run, "_go", lambda: run.folder.take(run.accelerator, plan))
    with pytest.raises(AlignzooError, match=r"run cannot be written: No space left on device") as failure:
        run.go()
    assert str(failure.value.hint).startswith("free some space, or ")
    assert not folder.exists()


def test_refusals_of_the_file_system_in_the_middle(tmp_path: Path) -> None:
    def said_of(error: Exception, folder: Path = tmp_path) -> AlignzooError | None:
        return file_problem(error, folder, "continue with --resume it")

    read_only = said_of(OSError(30, "Read-only file system", str(tmp_path / "metrics.jsonl")))
    assert read_only is not None
    assert f"cannot write {tmp_path / 'metrics.jsonl'}" in read_only.message
    assert read_only.hint == "repair that and continue with --resume it"
    full = said_of(OSError(28, "No space left on device"))
    assert full is not None
    assert full.hint == "free some space and continue with --resume it"
    assert remedy(RuntimeError("[enforce fail at inline_container.cc:664] . unexpected pos")) == "free some space"
    assert remedy(Exception("No space left on device (os error 28)")) == "free some space"
    assert remedy(RuntimeError("this tokenizer cannot be saved")) == "repair that"
    with pytest.raises(AlignzooError, match="gone was deleted or moved while the run was writing there"):
        said_of(FileNotFoundError(2, "No such file", "x"), tmp_path / "gone")
    assert said_of(FileNotFoundError(2, "No such file", "/elsewhere")) is None
    assert said_of(ValueError("x"), tmp_path / "gone") is None


def test_a_lock_is_given_back_by_its_owner_only(tmp_path: Path) -> None:
    claim = claim_new(tmp_path / "out", Reporter())
    child = os.fork()
    if child == 0:
        claim.release()
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    assert (tmp_path / "out" / LOCK_FILE).exists()
    claim.release()
    assert not (tmp_path / "out" / LOCK_FILE).exists()
