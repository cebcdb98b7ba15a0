"""An error says whose code it came out of: a third party's, with the place in it, or the core's."""

from __future__ import annotations

from pathlib import Path

import pytest

from alignzoo.cli.failures import report_failure
from alignzoo.errors import AlignzooError, Escape, contained
from alignzoo.plugin.blame import blame
from alignzoo.plugin.registry import plugins_from, registry

SOURCE = """from alignzoo.plugin import Card, hookimpl

def forgets():
    return nme

def calls(function):
    return function()

def ends():
    raise SystemExit(0)

@hookimpl
def alignzoo_methods():
    return []
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / f"blamed_{tmp_path.name}.py"
    path.write_text(SOURCE)
    return path


def raised(function: object, *arguments: object) -> BaseException:
    with pytest.raises((NameError, Escape, AlignzooError)) as error, contained():
        function(*arguments)  # type: ignore[operator]
    return error.value


def test_a_plugin_s_failure_is_the_plugin_s_with_its_place(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with plugins_from(file):
        module = __import__(registry().plugins[-1].module)
        error = raised(module.forgets)
        assert blame(error) == f"plugin {file.name}, {file}:4"
        assert blame(raised(module.ends)) == f"plugin {file.name}, {file}:10"
        assert report_failure(error, as_json=False, debug=False) == 4
        said = capsys.readouterr().err.splitlines()
        assert said[0] == f"error: plugin {file.name}, {file}:4: NameError: name 'nme' is not defined"
        # The innermost code counts: that a plugin called the core does not make the core's failure its own.
        assert blame(raised(module.calls, lambda: registry().find("loss", "nope"))) is None
    assert blame(error) is None  # nobody asked for that plugin here


def test_a_message_without_end_is_clipped(capsys: pytest.CaptureFixture[str]) -> None:
    report_failure(AlignzooError("begin " + "x" * 10**6 + " end"), as_json=True, debug=False)
    said = capsys.readouterr()
    assert len(said.err) < 5000
    assert len(said.out) < 5000
    assert said.err.startswith("error: begin x")
    assert said.err.endswith("x end\n")


def test_a_failure_of_no_plugin_is_internal(capsys: pytest.CaptureFixture[str]) -> None:
    error = raised(lambda: nme)  # type: ignore[name-defined]  # noqa: F821
    assert report_failure(error, as_json=False, debug=False) == 1
    assert capsys.readouterr().err.startswith("internal error: NameError")
