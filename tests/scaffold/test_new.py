"""``alignzoo new`` writes a method that works as it is, or nothing."""

from __future__ import annotations

import ast
import importlib
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from in_process import call_main

from alignzoo.plugin import KINDS, PLUGIN_API, Card, registry
from alignzoo.plugin.build import readers
from alignzoo.plugin.registry import plugins_from
from alignzoo.scaffold import TEMPLATES, Scaffold, write_file, write_folder
from alignzoo.testing import check_method, checks_for

NAMES = st.from_regex(r"[a-z0-9][a-z0-9-]{0,39}", fullmatch=True)
STRANGE = [
    "3d",
    "class",
    "card",
    "hookimpl",
    "a-b",
    "x",
    "f",
    "none",
    "pair-batch",
    "value-error",
    "alignzoo-mine",
    "a--",
]


@pytest.fixture
def new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Any:
    """Runs ``alignzoo new WORDS`` in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return lambda *words: call_main(["new", *words], capfd)


@pytest.fixture
def imported() -> Iterator[Any]:
    """Imports the package in a folder, and takes it away again."""
    path, packages = list(sys.path), set[str]()

    def load(folder: Path, package: str) -> ModuleType:
        packages.add(package)
        sys.path.insert(0, str(folder))
        importlib.invalidate_caches()
        return importlib.import_module(package)

    yield load
    sys.path[:] = path
    for name in list(sys.modules):
        if name.partition(".")[0] in packages:
            del sys.modules[name]


def files_in(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def card_of(plugin: ModuleType) -> Card:
    [card] = plugin.alignzoo_methods()
    assert isinstance(card, Card)
    return card


def test_every_kind_has_its_templates() -> None:
    for kind in KINDS.values():
        for name in (kind.template, f"{kind.template}_test"):
            assert (TEMPLATES / f"{name}.py.txt").is_file(), f"{kind.name} needs a template {name} for `alignzoo new`"


@pytest.mark.parametrize("kind", KINDS)
def test_a_package_is_written_and_what_comes_next_is_said(new: Any, tmp_path: Path, kind: str) -> None:
    done = new(kind, "my-mine")
    assert (done.returncode, done.stderr) == (0, "")
    assert files_in(tmp_path) == {
        "my-mine/pyproject.toml",
        "my-mine/README.md",
        "my-mine/.gitignore",
        "my-mine/alignzoo_my_mine/__init__.py",
        "my-mine/alignzoo_my_mine/my_mine.py",
        "my-mine/tests/test_my_mine.py",
    }
    steps = done.stdout.partition("next:\n")[2].splitlines()
    needed_by = [f" --{card.kind} {card.name}" for card in readers(KINDS[kind], registry())] or [""]
    beside = f" {KINDS[kind].beside}".rstrip()
    *before, last = [step.strip() for step in steps]
    assert before == ["pip install -e ./my-mine", "alignzoo check my-mine"]
    assert last in [
        f"alignzoo run --{kind} my-mine{one}{beside} --max-steps 20 --out runs/my-mine" for one in needed_by
    ]
    project = (tmp_path / "my-mine/pyproject.toml").read_text(encoding="utf-8")
    assert 'name = "alignzoo-my-mine"\n' in project
    assert 'dependencies = ["alignzoo"]\n' in project
    assert '[project.entry-points.alignzoo]\nmy-mine = "alignzoo_my_mine"\n' in project
    assert 'test = ["pytest"]\n' in project
    assert not [text for text in files_in(tmp_path) if "{{" in (tmp_path / text).read_text(encoding="utf-8")]


@pytest.mark.parametrize("kind", KINDS)
def test_the_method_keeps_the_contract(imported: Any, tmp_path: Path, kind: str) -> None:
    scaffold = Scaffold(kind, "my-mine")
    write_folder(tmp_path / "out", scaffold.package_files())
    card = card_of(imported(tmp_path / "out", scaffold.package))
    assert (card.kind, card.name, card.api) == (kind, "my-mine", PLUGIN_API)
    # The ranks are processes that stay, and know nothing of a path that was added since; .ci/plugin-authors asks them.
    rules = [check.rule for check in checks_for(card) if check.rule != "ranks"]
    report = check_method(card, rules=rules)
    assert report.ok, [outcome for outcome in report.outcomes if outcome.status == "failed"]


def test_their_own_tests_pass(tmp_path: Path) -> None:
    """Those beside the contract, which another test here runs; of all kinds in one process."""
    for kind in KINDS:
        write_folder(tmp_path / kind, Scaffold(kind, f"my-{kind}").package_files())
    words = ["-p", "no:cacheprovider", "-k", "formula", "-rA", "--rootdir", "."]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *words],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": os.pathsep.join(KINDS)}, capture_output=True, text=True,
        timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    for kind in KINDS:
        assert f"PASSED {kind}/tests/test_my_{kind}.py::" in done.stdout, done.stdout


def test_what_is_written_is_clean(tmp_path: Path) -> None:
    for kind in KINDS:
        for name in ["my-mine", "a" * 40, *STRANGE]:
            write_folder(tmp_path / f"{kind}-{name}", Scaffold(kind, name).package_files())
            write_file(tmp_path / f"{kind}-{name}.py", Scaffold(kind, name).single_file())
    for words in (
        ["check"],
        ["check", "--select", "E,F,W,I,UP,B,C4,SIM,RUF,PTH,PT", "--ignore", "RUF001,RUF002,RUF003"],
    ):
        done = ruff(*words, "--line-length", "120", folder=tmp_path)
        assert done.returncode == 0, done.stdout
    done = ruff("format", "--check", "--line-length", "120", folder=tmp_path)
    assert done.returncode == 0, done.stdout


def ruff(*words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ruff", *words, "--no-cache", "."]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("name", STRANGE)
def test_any_name_gives_names_that_python_takes(imported: Any, tmp_path: Path, name: str) -> None:
    scaffold = Scaffold("loss", name)
    write_folder(tmp_path / "out", scaffold.package_files())
    card = card_of(imported(tmp_path / "out", scaffold.package))
    assert card.name == name
    module, _, class_name = card.target.partition(":")
    made = getattr(sys.modules[module], class_name)(card.options())
    assert made.options.beta == 0.1


@given(name=NAMES, kind=st.sampled_from(list(KINDS)))
def test_all_names_give_code_that_compiles(name: str, kind: str) -> None:
    scaffold = Scaffold(kind, name)
    for path, text in {**scaffold.package_files(), "one.py": scaffold.single_file()}.items():
        if path.endswith(".py"):
            ast.parse(text)
    assert f"alignzoo_{scaffold.module}".isidentifier()
    assert scaffold.package.isidentifier()
    assert not scaffold.distribution.endswith("-")


def test_a_distribution_says_alignzoo_once() -> None:
    assert Scaffold("loss", "alignzoo-mine").distribution == "alignzoo-mine"
    assert Scaffold("loss", "alignzoo").distribution == "alignzoo-alignzoo"


@pytest.mark.parametrize("kind", KINDS)
def test_one_file_is_a_plugin(new: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: str) -> None:
    name = f"one-{kind}"
    monkeypatch.delitem(sys.modules, f"one_{kind}", raising=False)
    done = new(kind, name, "--file")
    assert (done.returncode, done.stderr) == (0, "")
    assert files_in(tmp_path) == {f"{name}.py"}
    assert f"alignzoo run --plugin ./{name}.py --{kind} {name}" in done.stdout
    with plugins_from(tmp_path / f"{name}.py"):
        card = registry().find(kind, name)
        assert isinstance(card, Card)
        assert check_method(card, rules=["target", "options"]).ok
        [plugin] = [plugin for plugin in registry().plugins if plugin.file]
        assert (plugin.error, plugin.warnings) == (None, [])


@pytest.mark.parametrize("kind", KINDS)
def test_the_run_it_names_is_possible(new: Any, capfd: pytest.CaptureFixture[str], kind: str) -> None:
    words = shlex.split(new(kind, f"possible-{kind}", "--file").stdout.rpartition("alignzoo ")[2])
    done = call_main([*words, "--dry-run"], capfd)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr


def test_json(new: Any, tmp_path: Path) -> None:
    done = new("robust", "mine", "--out", "here", "--json")
    facts = json.loads(done.stdout)
    assert facts["folder"] == "here"
    assert {f"here/{file}" for file in facts["files"]} == files_in(tmp_path)
    assert facts["next"][0] == "pip install -e ./here"
    refused = new("robust", "mine", "--out", "here", "--json")
    assert json.loads(refused.stdout)["error"]["exit_code"] == refused.returncode == 2


def test_paths_are_quoted_for_a_shell(new: Any, tmp_path: Path) -> None:
    (tmp_path / "a b").mkdir()
    assert "pip install -e './a b/c'" in new("loss", "mine", "--out", "a b/c").stdout
    assert "--plugin './a b/mine.py'" in new("loss", "mine", "--out", "a b", "--file").stdout


def test_an_empty_folder_is_filled(new: Any, tmp_path: Path) -> None:
    assert new("loss", "mine", "--out", ".").returncode == 0
    assert "pyproject.toml" in files_in(tmp_path)
    assert {path.name for path in tmp_path.iterdir() if path.name.startswith(".")} == {".gitignore"}


@pytest.mark.parametrize(
    ("words", "message", "hint"),
    [
        (["los", "mine"], "unknown kind 'los'", "did you mean loss?"),
        (["sampler", "mine"], "unknown kind 'sampler'", "loss, aggregation, robust"),
        (["loss", "My_Loss"], "'My_Loss' is not a valid method name", "for example my-loss"),
        (["loss", "-mine"], "", ""),
        (["loss", "ü"], "is not a valid method name", "for example my-method"),
        (["loss", "a" * 41], "too long", ""),
        (["loss", "dpo"], "loss 'dpo' already exists, in alignzoo", "choose another NAME"),
        (["loss", "drdpo"], "loss 'drdpo' already exists, in alignzoo", "choose another NAME"),
        (["loss", "losses"], "a package 'alignzoo_losses' already exists", "choose another NAME"),
        (["loss", "torch", "--file"], "torch.py would shadow the existing module 'torch'", "choose another NAME"),
        (["loss", "json", "--file"], "json.py would shadow the existing module 'json'", "choose another NAME"),
        (["loss", "mine", "--out", "no/where"], "no such folder", "create it first"),
        (["loss", "mine", "--out", "no", "--file"], "no such folder: no", "create it first"),
        (["loss"], "", ""),
        ([], "", ""),
    ],
)
def test_a_wrong_call_writes_nothing(new: Any, tmp_path: Path, words: list[str], message: str, hint: str) -> None:
    done = new(*words)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert message in done.stderr
    assert hint in done.stderr
    assert not list(tmp_path.iterdir())


def test_a_name_of_another_kind_is_free(new: Any) -> None:
    assert new("geometry", "dpo").returncode == 0


@pytest.mark.parametrize("occupied", ["folder", "file", "link"])
def test_nothing_is_overwritten(new: Any, tmp_path: Path, occupied: str) -> None:
    target = tmp_path / "mine"
    if occupied == "folder":
        target.mkdir()
        (target / "thesis.tex").write_text("years of work")
    elif occupied == "file":
        target.write_text("years of work")
    else:
        target.symlink_to("nowhere")
    before = files_in(tmp_path)
    done = new("loss", "mine")
    assert done.returncode == 2
    assert "nothing is overwritten" in done.stderr
    assert files_in(tmp_path) == before
    (tmp_path / "mine.py").write_text("years of work")
    assert "nothing is overwritten" in new("loss", "mine", "--file").stderr
    assert (tmp_path / "mine.py").read_text() == "years of work"


@pytest.mark.parametrize("existing", [True, False])
def test_a_failure_on_the_way_leaves_nothing(tmp_path: Path, existing: bool) -> None:
    folder = tmp_path / "mine"
    if existing:
        folder.mkdir()
    files = {**Scaffold("loss", "mine").package_files(), "x" * 300: "a name that no file system takes"}
    with pytest.raises(OSError, match="too long"):
        write_folder(folder, files)
    assert [path.name for path in tmp_path.rglob("*")] == (["mine"] if existing else [])
    with pytest.raises(OSError, match="too long"):
        write_file(tmp_path / ("x" * 300), "")
    assert [path.name for path in tmp_path.rglob("*")] == (["mine"] if existing else [])


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder that nobody can write into")
@pytest.mark.parametrize("words", [["--out", "/proc/mine"], ["--out", "/proc", "--file"]])
def test_a_folder_that_cannot_be_written_is_said(new: Any, words: list[str]) -> None:
    done = new("loss", "mine", *words)
    assert done.returncode == 2
    assert "error: cannot write /proc/mine" in done.stderr


def test_a_plugin_file_that_was_loaded_before_takes_no_name(new: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mine", ModuleType("mine"))
    assert new("loss", "mine", "--file").returncode == 0
