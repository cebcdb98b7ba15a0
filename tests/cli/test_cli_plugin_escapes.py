"""Strangers' code that ends processes, panics, prints and lies about its options: named, never taken for success."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from cli_helpers import AddPlugin, Az, card_source, plugin_source

LOSS = """
import sys
from pydantic import Field, field_validator
from alignzoo.interfaces import PreferenceLoss
from alignzoo.lazy import F, torch
from alignzoo.observers import RunObserver
from alignzoo.plugin import Card, Extension, Options, hookimpl

class StrangeOptions(Options):
    beta: float = Field(0.1, gt=0, description="strength")
    EXTRA

class Strange(PreferenceLoss):
    def __call__(self, pairs):
        CALL
        chosen, rejected = self.rewards(pairs)
        return F.softplus(rejected - chosen)

    def rewards(self, pairs):
        return self.options.beta * pairs.chosen_logps, self.options.beta * pairs.rejected_logps

class Watch(RunObserver):
    EVENTS

@hookimpl
def alignzoo_methods():
    return [Card(kind="loss", name="strange", target=f"{__name__}:Strange", options=StrangeOptions, summary="s",
                 formula="x", FACTS)]

@hookimpl
def alignzoo_observers():
    return [Extension(kind="observer", name="listen", target=f"{__name__}:Watch", summary="x")]
"""


def strange(tmp_path: Path, **parts: str) -> str:
    """The path of a plugin file with these parts."""
    text = LOSS
    for name, otherwise in (("EXTRA", "pass"), ("CALL", "pass"), ("EVENTS", "pass"), ("FACTS", "api=1")):
        text = text.replace(name, parts.get(name.lower(), otherwise))
    path = tmp_path / "strange_plugin.py"
    path.write_text(text)
    return str(path)


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    """A run of one step on pairs of its own."""
    from alignzoo_sandbox import preference_rows

    (tmp_path / "pairs.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in preference_rows("train", 64)))
    data = ["--model", "sandbox", "--data", str(tmp_path / "pairs.jsonl"), "--probe.share", "0"]
    return [*data, "--max-steps", "1", "--batch-size", "4", "--eval-share", "0", "--out", str(tmp_path / "run")]


@pytest.mark.parametrize("call", ["raise SystemExit(0)", "import asyncio; raise asyncio.CancelledError('stop')"])
def test_a_method_that_ends_the_process_is_a_failure(az: Az, tmp_path: Path, words: list[str], call: str) -> None:
    file = strange(tmp_path, call=call)
    checked = az("check", file, "--json")
    assert checked.returncode == 1
    assert json.loads(checked.stdout)["ok"] is False
    ended = az("run", "--plugin", file, "--loss", "strange", *words)
    assert ended.returncode == 4
    assert "Strange failed on" in ended.stderr
    assert f"({file}:" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_panic_at_import_breaks_only_its_plugin(az: Az, add_plugin: AddPlugin) -> None:
    plugins = add_plugin("panics", "class Panic(BaseException): pass\nraise Panic('rust')\n")
    ended = az("ls", "--json", plugins=plugins)
    assert ended.returncode == 0, ended.stderr
    [broken] = json.loads(ended.stdout)["broken"]
    assert broken["error"] == f"Panic: rust ({plugins / 'panics.py'}:2)"


def test_what_a_method_prints_does_not_spoil_the_result(az: Az, tmp_path: Path, words: list[str]) -> None:
    events = "def on_end(self, result, error):\n        result.pairs.clear(); print('over'); sys.exit(0)"
    file = strange(tmp_path, call="print('called')", events=events)
    ended = az("run", "--plugin", file, "--loss", "strange", "--observe", "listen", *words, "--json")
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout)["pairs"]["train"] == 64
    assert "called" in ended.stderr
    assert json.loads(az("check", file, "--json").stdout)["ok"]


def test_an_observer_leaves_the_process_as_it_found_it(az: Az, tmp_path: Path, words: list[str]) -> None:
    events = (
        "def on_start(self, folder, plan, steps):\n        import os, torch\n        os.chdir('/')\n"
        "        torch.set_grad_enabled(False)\n        torch.manual_seed(1)"
    )
    file = strange(tmp_path, events=events)
    words[-1] = "run"
    ended = az("run", "--plugin", file, "--observe", "listen", *words, cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert (tmp_path / "run" / "model" / "config.json").is_file()


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        ("def needs(self):\n        return 1 / 0", "ZeroDivisionError"),
        ("x: int = Field(default_factory=lambda: {}['a'], description='x')", "KeyError"),
        ("model_config = {'arbitrary_types_allowed': True}\n    x: object = Field(sys, description='x')", "serializ"),
    ],
)
def test_options_that_fail_are_the_fault_of_their_plugin(az: Az, tmp_path: Path, extra: str, said: str) -> None:
    file = strange(tmp_path, extra=extra)
    ended = az("ls", "--json", "--plugin", file)
    assert ended.returncode == 0, ended.stderr
    [broken] = json.loads(ended.stdout)["broken"]
    assert said in broken["error"]
    assert az("info", "dpo", "--plugin", file).returncode == 0
    asked_for = az("run", "--dry-run", "--plugin", file)
    assert asked_for.returncode == 4
    assert "plugin strange_plugin.py does not load" in asked_for.stderr


def test_a_validator_that_fails_is_named(az: Az, tmp_path: Path) -> None:
    extra = "@field_validator('beta')\n    def check(cls, value):\n        return 1 / (value - 0.5)"
    ended = az(
        "run", "--plugin", strange(tmp_path, extra=extra), "--loss", "strange", "--loss.beta", "0.5", "--dry-run"
    )
    assert ended.returncode == 4
    assert "the options of loss 'strange' fail" in ended.stderr


def test_files_of_a_package_that_cannot_be_read_do_no_harm(az: Az, add_plugin: AddPlugin, tmp_path: Path) -> None:
    plugins = add_plugin("packaged", "")
    (plugins / "packaged.py").unlink()
    package = plugins / "packaged"
    package.mkdir()
    (package / "__init__.py").write_text(plugin_source(card_source("loss", "packaged")))
    (package / ".#lock.py").symlink_to("me@host.1:2")
    (package / "folder.py").mkdir()
    plan = json.loads(az("run", "--loss", "packaged", "--dry-run", "--json", plugins=plugins).stdout)
    assert any(plugin["distribution"] == "packaged" for plugin in plan["plugins"])
    assert az("run", "--loss", "typo", "--dry-run", plugins=plugins).returncode == 2


def test_small_slips_of_authors_are_told(az: Az, add_plugin: AddPlugin) -> None:
    head = "from alignzoo.plugin import Card, Extension, hookimpl\n\n@hookimpl\n"
    slips = {
        "forgot-return": ("def alignzoo_methods():\n    []", "returned no cards; a hook returns a list"),
        "single-card": (
            "def alignzoo_judges():\n    return Extension(kind='judge', name='x', target='a:b', summary='x')",
            "a hook must return a list, this returned a single Extension",
        ),
        "relative-recipe": ("def alignzoo_recipes():\n    return ['mine.yaml']", "use an absolute path"),
        "takes-none": (
            "def alignzoo_methods():\n    return [Card(kind='robust', name='none', target='a:b', summary='', "
            "formula='')]",
            "`--robust none` means no wrapper",
        ),
        "no-reason": (
            "def alignzoo_methods():\n    return [Card(kind='loss', name='x', target='a:b', summary='', formula='', "
            "expected_failures={'swap': ' '})]",
            "expected_failures.swap",
        ),
        "built-in-format": (
            "def alignzoo_formats():\n    return [Extension(kind='format', name='explicit', target='a:b', summary='')]",
            "reserved: 'explicit' is a built-in format",
        ),
    }
    for name, (source, _) in slips.items():
        plugins = add_plugin(name, head + source)
    listed = az("ls", plugins=plugins).stdout
    for name, (_, message) in slips.items():
        assert any(line.startswith(name) and message in line for line in listed.splitlines()), (name, listed)


def test_one_file_given_twice_is_one_plugin(az: Az, tmp_path: Path) -> None:
    file = strange(tmp_path)
    link = tmp_path / "a_link.py"
    link.symlink_to(file)
    assert az("run", "--plugin", file, "--plugin", file, "--loss", "strange", "--dry-run").returncode == 0
    assert az("check", str(link), "--rule", "target").returncode == 0


def test_names_no_file_can_have_are_no_files(az: Az) -> None:
    for words in (["ls", "--plugin", "a" * 300 + ".py"], ["run", "--recipe", "a" * 300, "--dry-run"]):
        ended = az(*words)
        assert ended.returncode == 2
        assert "internal error" not in ended.stderr


def test_a_command_of_a_plugin_that_fails_is_named(az: Az, add_plugin: AddPlugin) -> None:
    source = (
        "import click, sys\nfrom alignzoo.plugin import Extension, hookimpl\n"
        "@click.command()\ndef boom():\n    1 / 0\n@click.command()\ndef leave():\n    sys.exit(7)\n"
        "@hookimpl\ndef alignzoo_commands():\n    return [Extension(kind='command', name=n, target=f'{__name__}:{n}', "
        "summary=n) for n in ('boom', 'leave', 'absent')]\n"
    )
    plugins = add_plugin("commands", source)
    ended = az("boom", plugins=plugins)
    assert ended.returncode == 1
    assert "command 'boom' of plugin commands 1.0 failed: ZeroDivisionError" in ended.stderr
    assert az("leave", plugins=plugins).returncode == 7
    environment = {**os.environ, "PYTHONPATH": str(plugins), "_ALIGNZOO_COMPLETE": "bash_complete"}
    environment |= {"COMP_WORDS": "alignzoo ", "COMP_CWORD": "1"}
    completed = subprocess.run(
        [str(Path(sys.executable).with_name("alignzoo"))], env=environment, capture_output=True, text=True, timeout=60
    )
    assert {"plain,run", "plain,boom", "plain,absent"} <= set(completed.stdout.split())


def test_observers_and_judges_that_would_not_be_heard(az: Az, tmp_path: Path) -> None:
    for events, said in (
        ("def on_stepend(self, step, metrics): pass", "nothing calls on_stepend; did you mean on_step_end?"),
        ("def on_end(self): pass", "on_end cannot be called with (result, error)"),
        ("async def on_end(self, result, error): pass", "on_end is async"),
    ):
        ended = az("check", strange(tmp_path, events=events))
        assert ended.returncode == 1
        assert said in ended.stdout
    shown = az("info", "listen", "--plugin", strange(tmp_path))
    assert shown.returncode == 2
    assert "'listen' is an observer, not a method" in shown.stderr


def test_check_all_goes_on_beside_a_broken_plugin(az_here: Az, add_plugin: AddPlugin, az: Az) -> None:
    plugins = add_plugin("broken-one", "raise RuntimeError('no')")
    ended = az("check", "--all", "--kind", "loss", "--rule", "target", plugins=plugins)
    assert ended.returncode == 1
    assert "plugin 'broken-one 1.0' breaks loads: RuntimeError: no" in ended.stdout
    assert "loss dpo (alignzoo 0.1.0): 1 passed" in ended.stdout
