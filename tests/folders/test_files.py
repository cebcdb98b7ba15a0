"""Files that are whole or not there, beside links that a stranger has laid, and what killed processes leave behind."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from alignzoo.base.files import (
    PARTIAL,
    append_text,
    check_links,
    clear_leftovers,
    scratch,
    whole,
    write_json,
    write_text,
)
from alignzoo.base.owner import Owner
from alignzoo.errors import AlignzooError

DAY = 24 * 3600


def test_a_link_is_replaced_and_its_target_is_not_touched(tmp_path: Path) -> None:
    outside, folder = tmp_path / "outside.txt", tmp_path / "run"
    outside.write_text("precious")
    folder.mkdir()
    for name in ("result.json", ".result.json.partial", "result.json.partial"):
        (folder / name).symlink_to(outside)
    write_json(folder / "result.json", {"steps": 3})
    assert (folder / "result.json").read_text() == '{\n  "steps": 3\n}\n'
    assert not (folder / "result.json").is_symlink()
    assert outside.read_text() == "precious"


def test_a_folder_takes_the_place_of_a_folder_or_a_link(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "weights").write_text("precious")
    (tmp_path / "model").symlink_to(outside)
    for content in ("first", "second"):
        with whole(tmp_path / "model") as path:
            path.mkdir()
            (path / "weights").write_text(content)
        assert (tmp_path / "model" / "weights").read_text() == content
    assert (outside / "weights").read_text() == "precious"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "outside"]


REPLACING = """
import os, signal
from pathlib import Path
from alignzoo.base.files import whole
Path.replace = lambda path, target: os.kill(os.getpid(), signal.SIGKILL)
with whole(Path(os.sys.argv[1])) as path:
    path.mkdir()
"""


def test_a_kill_between_two_renames_loses_nothing(tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    (model / "weights").write_text("before")
    subprocess.run([sys.executable, "-c", REPLACING, str(model)], check=False)
    assert not model.exists()
    clear_leftovers(tmp_path)
    assert (model / "weights").read_text() == "before"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_failure_between_two_renames_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "weights").write_text("before")

    def refused(*_arguments: object) -> None:
        raise KeyboardInterrupt

    def replace() -> None:
        with whole(tmp_path / "model") as path:
            path.mkdir()

    monkeypatch.setattr(Path, "replace", refused)
    with pytest.raises(KeyboardInterrupt):
        replace()
    assert (tmp_path / "model" / "weights").read_text() == "before"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_what_fails_leaves_what_was_there(tmp_path: Path) -> None:
    write_text(tmp_path / "facts", "before")

    def fail() -> None:
        with whole(tmp_path / "facts") as path:
            path.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert (tmp_path / "facts").read_text() == "before"
    assert [path.name for path in tmp_path.iterdir()] == ["facts"]


def test_nothing_is_appended_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "outside").write_text("precious")
    (tmp_path / "metrics.jsonl").symlink_to(tmp_path / "outside")
    with pytest.raises(OSError, match=r"metrics\.jsonl"):
        append_text(tmp_path / "metrics.jsonl", "more")
    append_text(tmp_path / "own", "one")
    append_text(tmp_path / "own", "two")
    assert (tmp_path / "outside").read_text() == "precious"
    assert (tmp_path / "own").read_text() == "onetwo"


def test_a_part_that_leads_out_of_the_folder_is_refused_by_name(tmp_path: Path) -> None:
    inner = tmp_path / "run" / "checkpoints"
    inner.mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "run")
    (tmp_path / "run" / "again").symlink_to(inner)
    check_links(tmp_path / "link")
    (inner / "step-00000001").symlink_to(tmp_path)
    with pytest.raises(AlignzooError, match=r"step-00000001 is a link to .*only inside its own folder"):
        check_links(tmp_path / "link")


@pytest.mark.parametrize("kind", ["link", "dangling link", "pipe", "folder"])
def test_a_file_that_is_not_regular_is_refused_by_name(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    (tmp_path / "other").write_text("")
    check_links(tmp_path, ["metrics.jsonl", "other"])
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to(tmp_path / ("other" if kind == "link" else "absent"))
    with pytest.raises(AlignzooError, match=r"metrics\.jsonl is (a link|not a regular file), and a run"):
        check_links(tmp_path, ["metrics.jsonl", "other"])


def test_leftovers_of_the_dead_are_cleared_those_of_the_living_are_not(tmp_path: Path) -> None:
    killed = "import os, signal; from pathlib import Path; from alignzoo.base.files import scratch\n"
    killed += f"with scratch(Path({str(tmp_path / 'cache' / 'a')!r})): os.kill(os.getpid(), signal.SIGKILL)"
    subprocess.run([sys.executable, "-c", killed], check=False)
    [left] = (tmp_path / "cache" / "a").iterdir()
    with scratch(tmp_path / "cache") as living:
        elsewhere = [tmp_path / "cache" / f"{PARTIAL}{'0' * 8}.1.ab-1.{name}" for name in ("old", "new")]
        for path in elsewhere:
            path.mkdir()
            (path / "rows").touch()
        for path in (elsewhere[0] / "rows", elsewhere[0]):
            os.utime(path, (0, time.time() - DAY - 60))
        clear_leftovers(tmp_path / "cache")
        assert living.is_dir()
        assert not left.exists()
        assert [path.exists() for path in elsewhere] == [False, True]
    assert not living.exists()


def test_an_owner_is_known_by_its_name_and_start() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    this = Owner.this()
    assert Owner.parse(this.token) == this
    assert Owner.parse("abcd") is None
    assert this.is_here
    assert this.runs()
    assert not Owner(this.host, child.pid, this.started).runs(), "a pid that was reused"
    assert not Owner("0" * 8, this.pid, this.started).is_here
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert not Owner(this.host, child.pid, "").runs(), "dead, and not yet collected by its parent"
    child.wait()
