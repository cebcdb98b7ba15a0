"""Options that the page for people from other trainers names exist, with the defaults it gives."""

from __future__ import annotations

import dataclasses
import re
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
from docs_helpers import codes, rows, text_of
from test_trl_losses import DPO_ROWS

from alignzoo.base.suggest import MIGRATION, nearest
from alignzoo.cli.run import command as run_command
from alignzoo.contract.card import Card
from alignzoo.contract.kinds import KINDS
from alignzoo.plan.settings import Settings
from alignzoo.plugin.registry import registry

PAGE = text_of("migration")


def _own_flags() -> set[str]:
    options = {
        f"{method.kind}.{name}"
        for _, method in registry().entries()
        if isinstance(method, Card)
        for name in method.options.model_fields
    }
    params = run_command.params
    words = {word.removeprefix("--") for one in params for word in (*one.opts, *one.secondary_opts)}
    return {*Settings.by_flag(), *KINDS, *options, *words}


def test_every_flag_of_ours_exists() -> None:
    named = set(re.findall(r"(?<![\w-])--([a-z][\w.-]*\w)", PAGE))
    assert len(named) > 30
    assert named - _own_flags() == set()


def _table(marker: str) -> list[list[str]]:
    found = re.search(rf"<!-- {re.escape(marker)} -->\n\n((?:\|.*\n)+)", PAGE)
    assert found, marker
    return list(rows(found[1]))


def _config(name: str) -> dict[str, Any]:
    """Field -> default of a configuration of TRL."""
    trl = pytest.importorskip("trl", reason="TRL is not installed: pip install -e '.[dev]'")
    if name == "DPOConfig":
        kind = trl.DPOConfig
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it is called experimental there
            from trl.experimental.cpo import CPOConfig as kind
    return {field.name: field.default for field in dataclasses.fields(kind)}


def _options(cell: str) -> list[str]:
    return [code.partition("=")[0] for code in codes(cell)]


@pytest.mark.parametrize("name", ["DPOConfig", "CPOConfig"])
def test_every_option_of_trl_is_one(name: str) -> None:
    fields = _config(name)
    named = [option for row in _table(f"options: trl.{name}") for option in _options(row[0])]
    assert len(named) > 4
    assert [option for option in named if option not in fields] == []


def test_options_of_older_releases_are_gone() -> None:
    fields = _config("DPOConfig")
    named = [option for row in _table("gone: trl.DPOConfig") for option in _options(row[0])]
    assert [option for option in named if option in fields] == []


def _answers() -> Iterator[tuple[str, list[str]]]:
    """Each word of another trainer with the flags that its row names here."""
    tables = {"options: trl.DPOConfig": 2, "gone: trl.DPOConfig": 1, "words: trl dpo": 1, "options: trl.CPOConfig": 2}
    for marker, ours in {**tables, "words: HALOs": 2}.items():
        for row in _table(marker):
            flags = [re.sub(r" [A-Z]+$", "", code) for code in codes(row[ours]) if re.match(r"--(?!loss )", code)]
            if flags and not re.search(r"×|=[\"{]|^`loss=", row[0]):
                yield from ((code.lstrip("+").partition("=")[0], flags) for code in codes(row[0]))


def test_words_of_the_tables_are_answered_with_ours() -> None:
    known = [f"--{flag}" for flag in _own_flags()]
    answers = {word: (flags, nearest(f"--{word}", known)) for word, flags in _answers()}
    assert len(answers) > 50
    assert {word: (flags, found) for word, (flags, found) in answers.items() if not set(found) <= set(flags)} == {}
    assert [word for word, (_, found) in answers.items() if not found] == []


def test_the_suggestions_are_those_of_the_page() -> None:
    options = {word.rpartition(".")[2].replace("_", "-") for word, _ in _answers()}
    in_words = {"sigmoid"}  # of the table of loss types
    assert set(MIGRATION) - options == in_words


def test_every_loss_type_of_trl_is_in_the_table_and_found_here() -> None:
    dpo, kto = (
        {row.theirs["loss_type"][0] for row in DPO_ROWS if "loss_type" in row.theirs},
        {"kto", "apo_zero_unpaired"},
    )
    stated = {code for row in _loss_types() for code in codes(row[0])}
    assert dpo | kto <= stated
    for row in _loss_types():
        for name in re.findall(r"--loss ([\w-]+)", row[1]):
            registry().find("loss", name)


def _loss_types() -> list[list[str]]:
    section = PAGE.partition("### Loss types")[2].partition("\n\nNot options")[0]
    return list(rows("".join(re.findall(r"^\|.*\n", section + "\n", re.M))))


def _stated(cell: str) -> str | float | None:
    """A default as a table states it: a number or a word of code; None for anything else."""
    if re.fullmatch(r"-?[\d.]+(e-?\d+)?", cell):
        return float(cell)
    code = re.fullmatch(r"`([\w.]+)`", cell)
    return code[1] if code else None


@pytest.mark.parametrize("name", ["DPOConfig", "CPOConfig"])
def test_defaults_of_trl_are_those_of_the_table(name: str) -> None:
    fields, compared = _config(name), 0
    for row in _table(f"options: trl.{name}"):
        options, stated = _options(row[0]), _stated(row[1])
        if stated is not None and "×" not in row[0]:
            assert fields[options[0]] == stated, row[0]
            compared += 1
    assert compared > 2


@pytest.mark.parametrize("name", ["DPOConfig", "CPOConfig"])
def test_our_defaults_are_those_of_the_table(name: str) -> None:
    flags = Settings.by_flag()
    for row in _table(f"options: trl.{name}"):
        words, stated = codes(row[2]), _stated(row[3])
        flag = words[0].partition(" ")[0].removeprefix("--") if words else ""
        if stated is not None and flag in flags:
            assert Settings.model_fields[flags[flag]].default == stated, row[2]
