"""alignzoo finds what the installed package brings."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import entry_points

import alignzoo
import yaml

import alignzoo_example


def test_the_methods_are_installed() -> None:
    assert "alignzoo_example" in [point.value for point in entry_points(group="alignzoo")]
    for card in alignzoo_example.alignzoo_methods():
        alignzoo.load_method(card.kind, f"alignzoo-example:{card.name}")


def test_the_recipe_names_both_methods() -> None:
    [path] = alignzoo_example.alignzoo_recipes()
    recipe = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert recipe["loss"]["name"] == "alignzoo-example:probit-dpo"
    assert recipe["geometry"] == "alignzoo-example:gradient-centralization"


def test_the_package_does_not_import_torch() -> None:
    program = "import alignzoo_example, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
