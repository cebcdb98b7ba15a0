"""``--plugin FILE``: a method in one file, without installing anything."""

from __future__ import annotations

import json
from pathlib import Path

from cli_helpers import AddPlugin, Az, card_source, plugin_source

import alignzoo
from alignzoo.plugin import plugins_from


def test_a_file_is_a_plugin(az: Az, tmp_path: Path) -> None:
    file = tmp_path / "my-loss.py"
    file.write_text(plugin_source(card_source("loss", "mine")))
    for words in (["--plugin", str(file)], [f"--plugin={file}"]):
        plan = json.loads(az("run", *words, "--loss", "mine", "--loss.width", "4", "--dry-run", "--json").stdout)
        assert plan["loss"]["from"] == "my-loss.py"
        assert plan["loss"]["options"]["width"] == {"value": 4, "from": "flag"}
        [used] = [plugin for plugin in plan["plugins"] if plugin["file"]]
        assert used["file"] == str(file)
        assert len(used["hash"]) == 16
    assert az("run", "--loss", "mine", "--dry-run").returncode == 2
    assert az("--plugin", str(file), "info", "mine").returncode == 0
    assert az("ls", "--no-plugins", "--plugin", str(file)).stdout.count("my-loss.py") == 1
    assert az("run", "--plugin", str(file), "--loss", "mine", "--help").stdout.count("--loss.width") == 1


def test_mistakes_with_files_are_named(az: Az, tmp_path: Path) -> None:
    missing = az("ls", "--plugin", "absent.py", cwd=tmp_path)
    assert missing.returncode == 2
    assert "--plugin absent.py: no such file" in missing.stderr
    (tmp_path / "json.py").write_text(plugin_source(card_source("loss", "mine")))
    taken = az("ls", "--plugin", str(tmp_path / "json.py"))
    assert taken.returncode == 2
    assert "another module is called 'json'" in taken.stderr
    (tmp_path / "typo.py").write_text("def broken(:\n")
    listed = az("ls", "--plugin", str(tmp_path / "typo.py"))
    assert listed.returncode == 0
    assert "SyntaxError" in listed.stdout
    asked = az("run", "--plugin", str(tmp_path / "typo.py"), "--loss", "whatever", "--dry-run")
    assert asked.returncode == 4
    assert f"fix {tmp_path / 'typo.py'}" in asked.stderr
    assert "Traceback" not in asked.stderr
    beside = az("run", "--plugin", str(tmp_path / "typo.py"), "--loss", "dpo", "--dry-run")
    assert beside.returncode == 4
    assert "plugin typo.py does not load: SyntaxError" in beside.stderr


def test_a_recipe_cannot_name_a_file(az: Az, tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text("plugin: evil.py\n")
    ended = az("run", "--recipe", str(tmp_path / "r.yaml"), "--dry-run")
    assert ended.returncode == 2
    assert "unknown setting 'plugin'" in ended.stderr


def test_an_edited_file_is_loaded_anew_in_one_process(tmp_path: Path) -> None:
    file = tmp_path / "notebook_loss.py"
    for name in ("first", "second-one"):
        file.write_text(plugin_source(card_source("loss", name)))
        with plugins_from(file):
            assert name in [card.name for card in alignzoo.list_methods("loss")]
    assert "second-one" not in [card.name for card in alignzoo.list_methods("loss")]


def test_commands_recipes_and_more_of_a_plugin(az: Az, add_plugin: AddPlugin, tmp_path: Path) -> None:
    (tmp_path / "tuned.yaml").write_text("description: tuned\nloss: {name: ipo, tau: 0.3}\n")
    plugins = add_plugin(
        "extras",
        "import click\nfrom pathlib import Path\nfrom alignzoo.plugin import Extension, hookimpl\n"
        "@click.command('hello')\n@click.argument('who')\n"
        "def hello(who):\n    'Greet.'\n    click.echo(f'hello {who}')\n"
        "@hookimpl\ndef alignzoo_commands():\n    return [\n"
        "        Extension(kind='command', name='hello', target='extras:hello', summary='greet somebody'),\n"
        "        Extension(kind='command', name='ls', target='extras:hello', summary='not yours'),\n"
        "        Extension(kind='command', name='probe', target='extras:hello', summary='not yours either'),\n"
        "        Extension(kind='command', name='hollow', target='extras:absent', summary='not there')]\n"
        f"@hookimpl\ndef alignzoo_recipes():\n    return [Path({str(tmp_path / 'tuned.yaml')!r})]\n",
    )
    assert az("hello", "you", "--debug", plugins=plugins).stdout == "hello you\n"
    text = az("--help", plugins=plugins).stdout
    assert "greet somebody (extras 1.0)" in text
    assert "not yours" not in text
    assert "dpo" in az("ls", plugins=plugins).stdout
    listed = az("ls", plugins=plugins).stdout
    assert "reserved: 'ls' is a built-in command" in listed
    assert "reserved: 'probe' is a built-in command" in listed, "one that a plugin of alignzoo brings"
    assert "Train a safety probe" in az("probe", "--help", plugins=plugins).stdout
    hollow = az("hollow", plugins=plugins)
    assert hollow.returncode == 4
    assert "command 'hollow' does not load from extras:absent" in hollow.stderr
    unknown = az("helo", plugins=plugins)
    assert unknown.returncode == 2
    assert "did you mean hello" in unknown.stderr
    plan = json.loads(az("run", "--recipe", "tuned", "--dry-run", "--json", plugins=plugins).stdout)
    assert plan["loss"]["options"]["tau"] == {"value": 0.3, "from": "recipe:tuned"}
    assert "tuned" in az("recipes", "list", plugins=plugins).stdout
    kinds = az("ls", "command", "--json", plugins=plugins)
    theirs = ["hello", "hollow"]
    names = [row["name"] for row in json.loads(kinds.stdout)["extensions"]]
    assert names == sorted(names)
    assert {*theirs, "chat", "compare", "sweep"} < set(names)
