"""Plugins with faults: each is named with its distribution, and nothing else is touched."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from cli_helpers import AddPlugin, Az, card_source, plugin_source

HOOK = "from alignzoo.plugin import Card, Extension, hookimpl\n\n"
GOOD = plugin_source(card_source("loss", "good"))
FAULTS = {
    "raises-on-import": ("\nraise RuntimeError('no luck')", "RuntimeError: no luck (FILE:2)"),
    "syntax-error": ("x = 1\ny = (", "SyntaxError: '(' was never closed (FILE:2)"),
    "unknown-name": ("def f():\n    return nme\nf()", "NameError: name 'nme' is not defined (FILE:2)"),
    "exits-on-import": ("import sys\nsys.exit(3)", "SystemExit: 3"),
    "raises-in-hook": (
        f"{HOOK}@hookimpl\ndef alignzoo_methods():\n    raise KeyError('gone')",
        "alignzoo_methods() failed: KeyError: 'gone' (FILE:5)",
    ),
    "too-new": (
        plugin_source(card_source("loss", "late", api=99, colour="of the future")),
        "'late' is written for plugin API 99, this alignzoo supports 1 to 2: upgrade alignzoo",
    ),
    "too-old": (
        plugin_source(card_source("loss", "early", api=0)),
        "'early' is written for plugin API 0, this alignzoo supports 1 to 2: upgrade the plugin",
    ),
    "misspelled-hook": (
        f"{HOOK}@hookimpl\ndef alignzoo_method():\n    return []",
        "there is no hook 'alignzoo_method'; did you mean alignzoo_methods?",
    ),
    "unmarked-hook": (
        "def alignzoo_methods():\n    return []",
        "alignzoo_methods is not marked with @hookimpl, so it would never be called",
    ),
    "hook-with-arguments": (
        f"{HOOK}@hookimpl\ndef alignzoo_methods(registry):\n    return []",
        "Argument(s) {'registry'} are declared in the hookimpl but can not be found in the hookspec",
    ),
    "no-card": (
        f"{HOOK}@hookimpl\ndef alignzoo_methods():\n    return ['dpo']",
        "alignzoo_methods() returned a str, expected Card or Composition",
    ),
    "invalid-card": (
        f"{HOOK}@hookimpl\ndef alignzoo_methods():\n    return [Card(kind='loss', name='No Name', summary='x')]",
        "invalid LossCard: name: String should match pattern",
    ),
    "same-name-twice": (
        plugin_source(card_source("loss", "twice"), card_source("loss", "other", aliases=("twice",))),
        "loss 'twice' is declared twice",
    ),
    "wrong-extension": (
        f"{HOOK}@hookimpl\ndef alignzoo_judges():\n"
        "    return [Extension(kind='observer', name='eye', target='a:B', summary='x')]",
        "alignzoo_judges() returned 'eye' of kind observer, expected judge",
    ),
    "no-such-recipe": (
        f"{HOOK}@hookimpl\ndef alignzoo_recipes():\n    return ['/nowhere/mine.yaml']",
        "alignzoo_recipes() names /nowhere/mine.yaml, which is not a file",
    ),
}
REMARKS = {
    "imports-torch": (f"import torch\n{GOOD}", "imports torch at discovery"),
    "sleeps": (f"import time\ntime.sleep(1.1)\n{GOOD}", "s to load, and every command waits for it"),
    "empty-module": ("x = 1", "provides nothing: none of its functions is a hook"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_listed_with_whose_it_is(az: Az, add_plugin: AddPlugin, name: str) -> None:
    source, message = FAULTS[name]
    add_plugin("sound", GOOD)
    plugins = add_plugin(name, source)
    listed = az("ls", "--json", plugins=plugins)
    assert listed.returncode == 0, listed.stderr
    facts = json.loads(listed.stdout)
    [broken] = facts["broken"]
    assert broken["distribution"] == name
    assert message.replace("FILE", str(plugins / f"{name.replace('-', '_')}.py")) in broken["error"]
    assert "\n" not in broken["error"]
    assert {"dpo", "good"} <= {method["name"] for method in facts["methods"]}
    assert not {"late", "early", "twice", "other"} & {method["name"] for method in facts["methods"]}


@pytest.mark.parametrize("name", REMARKS)
def test_a_fault_that_breaks_nothing_is_a_warning(az: Az, add_plugin: AddPlugin, name: str) -> None:
    source, message = REMARKS[name]
    plugins = add_plugin(name, source)
    facts = json.loads(az("ls", "--json", plugins=plugins).stdout)
    assert facts["broken"] == []
    own = [entry["warning"] for entry in facts["warnings"] if entry["distribution"] == name]
    assert any(message in warning for warning in own)  # a busy machine may find it, or others, slow as well
    assert message in az("ls", plugins=plugins).stdout
    assert message in json.dumps(json.loads(az("doctor", "--json", plugins=plugins).stdout)["warnings"])


def test_each_of_two_plugins_that_import_torch_is_named(az: Az, add_plugin: AddPlugin) -> None:
    add_plugin("heavy-one", REMARKS["imports-torch"][0].replace("good", "one"))
    plugins = add_plugin("heavy-two", REMARKS["imports-torch"][0].replace("good", "two"))
    warnings = json.loads(az("ls", "--json", plugins=plugins).stdout)["warnings"]
    named = {entry["distribution"] for entry in warnings if "imports torch" in entry["warning"]}
    assert named == {"heavy-one", "heavy-two"}


def test_what_a_plugin_prints_does_not_spoil_the_json(az: Az, add_plugin: AddPlugin) -> None:
    plugins = add_plugin("chatty", f"print('hello')\n{GOOD}")
    ended = az("ls", "--json", plugins=plugins)
    assert json.loads(ended.stdout)["broken"] == []
    assert "hello" in ended.stderr


def test_strict_mode_refuses_everything_with_a_fault(az: Az, add_plugin: AddPlugin) -> None:
    for name in ("raises-in-hook", "too-new"):
        plugins = add_plugin(name, FAULTS[name][0])
    add_plugin("imports-torch", REMARKS["imports-torch"][0])
    add_plugin("rival", plugin_source(card_source("loss", "ipo")))
    ended = az("run", "--dry-run", plugins=plugins, ALIGNZOO_STRICT_PLUGINS="1")
    assert ended.returncode == 4
    for part in (
        "raises-in-hook 1.0:",
        "too-new 1.0:",
        "imports-torch 1.0:",
        "loss 'ipo' is provided by alignzoo, rival",
    ):
        assert part in ended.stderr
    assert az("run", "--dry-run", plugins=plugins, ALIGNZOO_STRICT_PLUGINS="0").returncode == 0
    assert az("ls", ALIGNZOO_STRICT_PLUGINS="1").returncode == 0  # alignzoo itself has none


def test_strict_mode_leaves_out_what_depends_on_the_machine(az: Az, add_plugin: AddPlugin) -> None:
    plugins = add_plugin("sleeps", REMARKS["sleeps"][0])
    assert az("ls", plugins=plugins, ALIGNZOO_STRICT_PLUGINS="1").returncode == 0


def test_no_plugins_leaves_the_built_in_methods(az: Az, add_plugin: AddPlugin) -> None:
    add_plugin("raises-on-import", FAULTS["raises-on-import"][0])
    plugins = add_plugin("sound", GOOD)
    for words in (["ls", "--no-plugins"], ["--no-plugins", "ls"]):
        facts = json.loads(az(*words, "--json", plugins=plugins).stdout)
        assert facts["broken"] == []
        assert {method["distribution"] for method in facts["methods"]} == {"alignzoo"}
    assert az("run", "--loss", "good", "--dry-run", "--no-plugins", plugins=plugins).returncode == 2
    assert az("run", "--loss", "good", "--dry-run", plugins=plugins).returncode == 0


def test_a_plugin_that_takes_a_built_in_name_does_not_get_the_default(az: Az, add_plugin: AddPlugin) -> None:
    plugins = add_plugin("rival", plugin_source(card_source("loss", "dpo"), card_source("geometry", "plain")))
    plan = json.loads(az("run", "--dry-run", "--json", plugins=plugins).stdout)
    assert (plan["loss"]["from"], plan["geometry"]["from"]) == ("alignzoo", "alignzoo")
    listed = az("ls", plugins=plugins).stdout
    assert "both provide loss 'dpo'; pick one with distribution:dpo" in listed
    asked = az("run", "--loss", "dpo", "--dry-run", plugins=plugins)
    assert asked.returncode == 2
    assert "--loss alignzoo:dpo or --loss rival:dpo" in asked.stderr


def test_an_alias_does_not_take_the_name_of_another(az: Az, add_plugin: AddPlugin) -> None:
    plugins = add_plugin("sly", plugin_source(card_source("loss", "sly", aliases=("dpo", "sneaky"))))
    plan = json.loads(az("run", "--loss", "dpo", "--dry-run", "--json", plugins=plugins).stdout)
    assert plan["loss"]["from"] == "alignzoo"
    assert (
        json.loads(az("run", "--loss", "sneaky", "--dry-run", "--json", plugins=plugins).stdout)["loss"]["name"]
        == "sly"
    )


@pytest.mark.slow
def test_a_run_is_the_same_bit_for_bit_beside_faulty_plugins(add_plugin: AddPlugin, tmp_path: Path) -> None:
    for name, (source, _) in {**FAULTS, **REMARKS}.items():
        plugins = add_plugin(name, source)
    layout = (
        f"{HOOK}from alignzoo.lazy import torch\ntorch.manual_seed(7)\n"
        "@hookimpl\ndef alignzoo_formats():\n"
        "    return [Extension(kind='format', name='greedy', target='meddling:LAYOUT', summary='x')]"
    )
    plugins = add_plugin("meddles", layout)
    trace = tmp_path / "imported"
    (plugins / "meddling.py").write_text(f"open({str(trace)!r}, 'w').close()\nraise SystemExit(0)\n")
    from alignzoo_sandbox import preference_rows

    rows = preference_rows("train", 64)
    (tmp_path / "pairs.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    words = ["--model", "sandbox", "--data", "pairs.jsonl", "--max-steps", "2", "--batch-size", "4", "--lora.r", "4"]
    weights = []
    for out, path in (("alone", ""), ("beside", str(plugins))):
        command = [sys.executable, "-m", "alignzoo", "run", *words, "--out", out]
        ended = subprocess.run(
            command, env={**os.environ, "PYTHONPATH": path}, cwd=tmp_path, capture_output=True, text=True
        )
        assert ended.returncode == 0, ended.stderr
        weights.append(json.loads((tmp_path / out / "result.json").read_text())["weights"])
        environment = json.loads((tmp_path / out / "env.json").read_text())["plugins"]
        assert all(len(plugin["hash"]) == 16 for plugin in environment)
    assert weights[0] == weights[1]
    assert not trace.exists(), "a plugin's layout was imported although a built-in one fits"
    assert {"too-new", "meddles"} <= {plugin["distribution"] for plugin in environment}
