"""The rules for models, data and evaluators: an honest plugin passes, and each lie breaks a rule."""

from __future__ import annotations

from pathlib import Path

import pytest
from alignzoo_sandbox import MODEL_PATH
from worlds import world

from alignzoo.plugin import plugins_from, registry
from alignzoo.testing.extensions import check_extensions

FOLDER = repr(str(MODEL_PATH))


def faults(path: Path) -> dict[str, str]:
    """What the rules say of each extension of a plugin file; empty where it keeps them."""
    with plugins_from(path):
        [plugin] = [plugin for plugin in registry().plugins if plugin.file == path]
        assert plugin.error is None
        return {report.kind: report.outcomes[0].detail for report in check_extensions(plugin)}


def test_a_model_data_and_an_evaluator_that_keep_the_rules(tmp_path: Path) -> None:
    assert faults(world(tmp_path, FOLDER)) == {"model": "", "data": "", "evaluator": ""}


def test_alignzoo_keeps_its_own_rules() -> None:
    [plugin] = [plugin for plugin in registry().plugins if plugin.entry_point == "sandbox"]
    reports = {report.kind: report.outcomes[0].detail for report in check_extensions(plugin)}
    assert reports == dict.fromkeys(("model", "data", "evaluator", "judge", "recipe", "suite"), "")


@pytest.mark.parametrize(
    ("kind", "old", "new", "said"),
    [
        ("model", f"return {FOLDER}", "return 3", "returned 3, expected a folder"),
        ("model", f"return {FOLDER}", "return './absent-model'", "./absent-model: no such folder"),
        ("model", "def place():", "def place(where):", "expected a function without arguments"),
        ("data", "(0, 24)", "(0, 0)", "its train split has no rows"),
        ("data", "(24, 30)", "(24, 24)", "its validation split has no rows"),
        ("data", "class Towers(DataSource)", "class Towers", "expected a subclass of DataSource"),
        ("data", "yield {", "yield 3 if n == 5 else {", "a row of its train split has type int"),
        ("data", '{"prompt": f"How far is tower {n}?"', '{"prompt": f"{id(object)} {next(C)}"', "at the second call"),
        ("data", '"chosen": f', '"best": f', "no known preference layout"),
        ("data", 'evaluator="size"', 'evaluator="sise"', "unknown evaluator"),
        ("data", '"rejected": "No."}', '"rejected": None if n == 7 else "No."}', "row 7 of its train split"),
        ("evaluator", "def figures(self, run)", "def figures(self)", "figures cannot be called with (run)"),
        ("evaluator", "def figures(self, run)", "def figure(self, run)", "figures is not written"),
        ("evaluator", 'name="size", target', 'name="size", judge="nobody", target', "unknown judge"),
    ],
)
def test_a_lie_breaks_a_rule(kind: str, old: str, new: str, said: str, tmp_path: Path) -> None:
    honest = [
        ("def place", "import itertools\nC = itertools.count()\n\n\ndef place"),
        ("held_out=True", "held_out=True, clean=True"),
    ]
    found = faults(world(tmp_path, FOLDER, *honest, (old, new)))
    assert said in found.pop(kind)
    assert set(found.values()) == {""}
