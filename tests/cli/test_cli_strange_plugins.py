"""Plugins that do not load, and plugins that bring the same name."""

import json

from cli_helpers import AddPlugin, Az, card_source, plugin_source

BROKEN = 'import module_that_is_not_there\nNAME = "wild"\n'


def test_a_broken_plugin_breaks_only_what_asks_for_it(az: Az, add_plugin: AddPlugin) -> None:
    plugins = add_plugin("broken-plugin", BROKEN)
    listed = az("ls", plugins=plugins)
    assert listed.returncode == 0
    assert "dpo" in listed.stdout
    assert listed.stdout.splitlines()[-1].startswith("broken-plugin 1.0")
    assert "No module named 'module_that_is_not_there'" in listed.stdout
    [entry] = json.loads(az("ls", "--json", plugins=plugins).stdout)["broken"]
    assert (entry["distribution"], entry["version"]) == ("broken-plugin", "1.0")
    assert az("run", "--loss", "dpo", "--dry-run", plugins=plugins).returncode == 0
    assert az("run", "--loss", "wild", "--help", plugins=plugins).returncode == 0
    for words in (["run", "--loss", "wild", "--loss.x", "1"], ["info", "wild"]):
        ended = az(*words, plugins=plugins)
        assert ended.returncode == 4
        assert "broken-plugin 1.0" in ended.stderr
        assert "module_that_is_not_there" in ended.stderr
        assert "Traceback" not in ended.stderr


def test_doctor_finds_broken_plugins_and_methods_without_code(az: Az, add_plugin: AddPlugin) -> None:
    add_plugin("broken-plugin", BROKEN)
    plugins = add_plugin("hollow-plugin", plugin_source(card_source("loss", "hollow")))
    ended = az("doctor", "--json", plugins=plugins)
    assert ended.returncode == 1
    facts = json.loads(ended.stdout)
    assert not facts["ok"]
    broken, hollow = sorted(facts["problems"])
    assert "upgrade or uninstall broken-plugin" in broken
    assert "loss 'hollow' does not load from absent_module:Absent" in hollow


def test_one_name_in_two_plugins(az: Az, add_plugin: AddPlugin) -> None:
    add_plugin("one-dist", plugin_source(card_source("loss", "twin")))
    plugins = add_plugin("two-dist", plugin_source(card_source("loss", "twin", batch_coupled=True)))
    refused = az("run", "--loss", "twin", "--loss.width", "2", "--dry-run", plugins=plugins)
    assert refused.returncode == 2
    assert "one-dist, two-dist" in refused.stderr
    assert "--loss one-dist:twin or --loss two-dist:twin" in refused.stderr
    words = ["--loss", "two-dist:twin", "--loss.width", "2", "--loss.keep", "--dry-run", "--json"]
    plan = json.loads(az("run", *words, plugins=plugins).stdout)
    assert {name: stated["value"] for name, stated in plan["loss"]["options"].items()} == {
        "width": 2,
        "mode": "soft",
        "keep": True,
    }
    both = json.loads(az("info", "twin", "--json", plugins=plugins).stdout)["methods"]
    coupled = [(method["distribution"], method["batch_coupled"]) for method in both]
    assert coupled == [("one-dist", False), ("two-dist", True)]
    listed = az("ls", "loss", plugins=plugins).stdout
    assert "two-dist 1.0" in listed
    refused = json.loads(az("compat", "--json", plugins=plugins).stdout)["refused"]
    under_wdpo = {pair["methods"][0]["name"] for pair in refused if pair["methods"][1]["name"] == "wdpo"}
    assert under_wdpo & {"one-dist:twin", "two-dist:twin", "twin"} == {"two-dist:twin"}  # the coupled one


def test_help_shows_types_bounds_and_stacked_wrappers_by_name(az: Az, add_plugin: AddPlugin) -> None:
    cards = [card_source("robust", "soft-one"), card_source("robust", "soft-two")]
    plugins = add_plugin("two-wrappers", plugin_source(*cards))
    text = az("run", "--robust", "soft-one", "--robust=soft-two", "--help", plugins=plugins).stdout
    for part in ("Robust soft-one:", "--robust.soft-one.width INT", "--robust.soft-two.mode [hard|soft]"):
        assert part in text
    assert "--robust.soft-two.keep / --no-robust.soft-two.keep" in text
    assert "how wide [default: 3; >= 1, <= 9]" in " ".join(text.split())
    words = ["--robust", "soft-one", "--robust", "soft-two", "--robust.width", "5", "--robust.soft-two.width", "7"]
    plan = json.loads(az("run", *words, "--dry-run", "--json", plugins=plugins).stdout)
    assert [method["options"]["width"]["value"] for method in plan["robust"]] == [5, 7]
