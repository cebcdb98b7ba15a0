"""``cite``, and the figures of ``info``."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from cli_helpers import AddPlugin, Az, card_source, plugin_source

from alignzoo.plan.plan import Plan
from alignzoo.plan.planfile import write_plan
from alignzoo.plan.recipe import Layer
from alignzoo.plan.resolve import resolve


def _cited(text: str) -> list[str]:
    return re.findall(r"^@\w+\{(\w+),$", text, re.M)


def test_cite_prints_a_method_and_the_software(az_here: Az) -> None:
    text = az_here("cite", "dpo").stdout
    assert _cited(text) == ["rafailov2023dpo", "alignzoo"]
    assert "% loss dpo\n" in text
    assert "{{Direct Preference Optimization: Your Language Model is Secretly a Reward Model}}" in text


def test_cite_takes_aliases_kinds_and_distributions(az_here: Az) -> None:
    assert _cited(az_here("cite", "sigmoid").stdout) == _cited(az_here("cite", "loss:dpo").stdout)
    assert _cited(az_here("cite", "alignzoo:dpo").stdout) == _cited(az_here("cite", "dpo").stdout)


def test_cite_of_a_composition_has_its_parts(az_here: Az) -> None:
    facts = json.loads(az_here("cite", "loss:drdpo", "--json").stdout)
    methods = [(m["kind"], m["name"]) for paper in facts["papers"] for m in paper["methods"]]
    assert set(methods) == {("loss", "drdpo"), ("robust", "drdpo"), ("loss", "dpo")}
    assert len(facts["papers"]) == 2, "the wrapper and the composition have one paper"
    assert all(paper["bibtex"].startswith("@") for paper in facts["papers"])


def test_cite_of_a_recipe_names_what_it_runs(az_here: Az) -> None:
    text = az_here("cite", "drdpo-shapo").stdout
    named = re.findall(r"^% (.+)$", text, re.M)
    assert any("robust drdpo" in line and "loss drdpo" in line for line in named)
    assert any("geometry shapo-token" in line for line in named)
    assert any(line.startswith("loss dpo") for line in named)


def test_cite_of_a_run_is_that_of_its_methods_however_they_were_spelled(az_here: Az, tmp_path: Path) -> None:
    texts = []
    for name, values in (("short", {"loss": ["drdpo"]}), ("long", {"loss": ["dpo"], "robust": ["drdpo"]})):
        plan = resolve([Layer("flag", values)])
        assert isinstance(plan, Plan)
        (tmp_path / name).mkdir()
        write_plan(plan, tmp_path / name)
        texts.append(az_here("cite", str(tmp_path / name)).stdout)
    assert texts[0] == texts[1]
    assert len(_cited(texts[0])) == 3
    assert "% without a paper: geometry plain" in texts[0]


def test_cite_of_a_recipe_of_stages_has_those_of_all(az_here: Az) -> None:
    text = az_here("cite", "spin").stdout
    assert "% recipe spin: SPIN (arXiv 2401.01335)" in text
    assert "rafailov2023dpo" in _cited(text)


def test_cite_of_a_recipe_asks_for_neither_model_nor_data(az_here: Az) -> None:
    for name in ("sacpo", "p-sacpo", "safedpo"):
        assert "@" in az_here("cite", name).stdout, name


def test_cite_says_each_paper_once(az_here: Az) -> None:
    assert _cited(az_here("cite", "dpo", "pl-dpo", "dpo").stdout) == ["rafailov2023dpo", "alignzoo"]


def test_cite_of_a_method_without_a_paper_says_so(az: Az, add_plugin: AddPlugin) -> None:
    plugins = add_plugin("some-dist", plugin_source(card_source("loss", "homemade")))
    text = az("cite", "homemade", plugins=plugins).stdout
    assert _cited(text) == ["alignzoo"]
    assert "% without a paper: loss homemade" in text


@pytest.mark.parametrize(
    ("name", "said"),
    [("dppo", "did you mean dpo"), ("drdpo-shap", "did you mean drdpo-shapo"), (".", "it contains no plan.yaml")],
)
def test_cite_of_what_is_not_there(az_here: Az, name: str, said: str) -> None:
    ended = az_here("cite", name)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert said in ended.stderr


def test_info_draws_where_it_is_asked_to(az_here: Az) -> None:
    text = az_here("info", "dpo", "--draw").stdout
    assert "gradient of the loss" in text
    assert set("⠉⠒⠤⣀") & set(text)
    assert max(map(len, text.partition("--loss.beta")[2].splitlines()[1:])) <= 100
    assert "gradient of the loss" not in az_here("info", "dpo").stdout
    assert "gradient" not in az_here("info", "sam", "--draw").stdout.partition("option")[2].partition("\n\n")[2]


def test_info_of_a_plugins_method_that_cannot_be_drawn_shows_the_rest(az: Az, add_plugin: AddPlugin) -> None:
    plugins = add_plugin("some-dist", plugin_source(card_source("loss", "broken-loss")))
    ended = az("info", "broken-loss", "--draw", plugins=plugins)
    assert ended.returncode == 0
    assert "--loss.width" in ended.stdout
    assert "not drawn: " in ended.stdout


def test_info_plots_into_a_file(az_here: Az, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / "dpo.svg"
    assert az_here("info", "loss:dpo", "--plot", str(path)).returncode == 0
    assert path.read_text(encoding="utf-8").lstrip().startswith("<?xml")
    assert "losses have one, and robust wrappers that" in az_here("info", "sam", "--plot", str(path)).stderr


def test_info_says_who_when_and_what_it_runs_with(az_here: Az) -> None:
    lines = [line.strip() for line in az_here("info", "kto", "--kind", "loss").stdout.splitlines()]
    assert any(line.startswith("family") for line in lines)
    assert "run it" in " ".join(lines)
    assert any(re.match(r"not with\s+--robust .*soft-label", line) for line in lines)
    [facts] = json.loads(az_here("info", "kto", "--kind", "loss", "--json").stdout)["methods"]
    assert "soft-label" in facts["not_with"]["robust"]
    assert facts["year"] == 2024
    assert facts["example"].startswith("alignzoo run --loss kto")


def test_cite_of_a_published_recipe_begins_with_its_paper(az_here: Az, tmp_path: Path) -> None:
    assert _cited(az_here("cite", "mpo").stdout)[:2] == ["wang2024mpo", "rafailov2023dpo"]
    assert _cited(az_here("cite", "sacpo", "p-sacpo").stdout).count("wachi2024sacpo") == 1
    mine = tmp_path / "mine.yaml"
    mine.write_text("loss: dpo\npaper: {title: Mine, authors: ['Me, Only'], published: 2020}\n")
    assert _cited(az_here("cite", str(mine)).stdout)[0] == "me2020mine"
    mine.write_text("loss: dpo\npaper: {titel: Mine}\n")
    refused = az_here("cite", str(mine))
    assert refused.returncode == 2
    assert "paper is not valid" in refused.stderr
