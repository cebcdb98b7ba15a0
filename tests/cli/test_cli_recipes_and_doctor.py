"""``recipes`` and ``doctor``."""

import importlib.metadata
import json
from pathlib import Path

import yaml
from cli_helpers import Az

from alignzoo.cli.environment import _package
from alignzoo.plan.recipe import recipe_names


def test_recipes_are_listed_shown_and_copied(az: Az, tmp_path: Path) -> None:
    text = az("recipes", "list").stdout
    listed = json.loads(az("recipes", "list", "--json").stdout)["recipes"]
    assert {recipe["name"] for recipe in listed} == set(recipe_names())
    for recipe in listed:
        assert recipe["description"] in text
    assert az("recipes").stdout == text
    shown = az("recipes", "show", "sandbox").stdout
    assert az("recipes", "sandbox").stdout == az("recipes", "alignzoo:sandbox").stdout == shown
    (tmp_path / "latin.yaml").write_bytes(b"description: caf\xe9\n")
    latin = az("recipes", "show", str(tmp_path / "latin.yaml"))
    assert latin.returncode == 2
    assert "is not UTF-8 text" in latin.stderr
    assert yaml.safe_load(shown)["model"] == "sandbox"
    copied = az("recipes", "copy", "sandbox", cwd=tmp_path)
    assert copied.stdout == "sandbox.yaml\n"
    assert (tmp_path / "sandbox.yaml").read_text() == shown


def test_recipes_copy_overwrites_nothing(az: Az, tmp_path: Path) -> None:
    (tmp_path / "sandbox.yaml").write_text("mine")
    for dest in ([], ["."], ["sandbox.yaml"]):
        ended = az("recipes", "copy", "sandbox", *dest, cwd=tmp_path)
        assert ended.returncode == 2
        assert "sandbox.yaml already exists" in ended.stderr
    assert (tmp_path / "sandbox.yaml").read_text() == "mine"
    assert az("recipes", "copy", "sandbox", "absent/there.yaml", cwd=tmp_path).returncode == 2
    missing = az("recipes", "show", "sandbux")
    assert missing.returncode == 2
    assert "did you mean sandbox?" in missing.stderr


def test_doctor_shows_what_is_here(az: Az, tmp_path: Path) -> None:
    ended = az("doctor", HF_HOME=str(tmp_path / "hub"))
    assert ended.returncode == 0, ended.stdout
    assert ended.stdout.rstrip().endswith("no problems found")
    for fact in ("torch", importlib.metadata.version("torch"), ">= 2.6", "gguf", "shapo", "cpu", "sandbox: present"):
        assert fact in ended.stdout
    assert str(tmp_path / "hub") in ended.stdout


def test_a_package_that_is_missing_or_too_old_says_how_to_get_it() -> None:
    assert _package("pluggy>=1.5").problem is None
    assert _package("pluggy>=1").minimum == "1"
    old = _package("pluggy>=99.1")
    assert old.problem is not None
    assert old.problem.endswith("is too old: pip install -U 'pluggy>=99.1'")
    missing = _package("surely-not-installed>=2")
    assert missing.problem == "surely-not-installed is missing: pip install 'surely-not-installed>=2'"
