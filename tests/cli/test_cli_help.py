"""Help at 80 columns, and what completes in Python."""

import subprocess

import pytest
from cli_helpers import Az

import alignzoo
from alignzoo.plugin.declared import OWN_COMMANDS

COMMANDS = [(name,) for name in (*OWN_COMMANDS, "probe", "sharpness")]


@pytest.mark.parametrize("words", [(), *COMMANDS, ("recipes", "copy")], ids=" ".join)
def test_no_help_is_cut_or_too_wide(words: tuple[str, ...], az_here: Az) -> None:
    ended: subprocess.CompletedProcess[str] = az_here(*words, "--help", COLUMNS="80")
    lines = ended.stdout.splitlines()
    assert lines
    assert [line for line in lines if line.endswith("...") and not line.startswith("Usage: ")] == []
    assert [line for line in lines if len(line) > 80 and " " in line.strip()] == []


def test_dir_lists_what_is_public() -> None:
    assert set(alignzoo.__all__) <= set(dir(alignzoo))


def test_commands_that_plugins_of_alignzoo_bring_are_listed_as_its_own(az_here: Az) -> None:
    text = az_here("--help").stdout
    assert "Plugin commands" not in text
    own = text.partition("Commands:\n")[2]
    for name in ("run", "probe", "sharpness"):
        assert f"\n  {name} " in f"\n{own}"
    assert "alignzoo 0." not in own
