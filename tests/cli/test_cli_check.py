"""``alignzoo check``: honest and lying methods, whole distributions, and what ``ls`` remembers of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli_helpers import AddPlugin, Az

SOURCE = """
from pydantic import Field
from alignzoo.interfaces import PreferenceLoss
from alignzoo.lazy import F, torch
from alignzoo.plugin import Card, Composition, Extension, Options, hookimpl


class GapOptions(Options):
    beta: float = Field(0.1, gt=0, description="strength")


class Gap(PreferenceLoss):
    def __call__(self, pairs):
        chosen, rejected = self.rewards(pairs)
        return RESULT

    def rewards(self, pairs):
        return self.options.beta * pairs.chosen_logps, self.options.beta * pairs.rejected_logps


def eye(request, answer):
    return "refuses"


@hookimpl
def alignzoo_methods():
    return [
        Card(kind="loss", name="gap", target=f"{__name__}:Gap", options=GapOptions, summary="gap", formula="x", api=1),
        Composition(name="gap-mix", summary="both", loss="gap", robust=(WRAPPER,)),
    ]


@hookimpl
def alignzoo_judges():
    return [Extension(kind="judge", name="eye", target=f"{__name__}:JUDGE", summary="x")]
"""


def source(*, result: str = "F.softplus(rejected - chosen)", wrapper: str = "'drdpo'", judge: str = "eye") -> str:
    return SOURCE.replace("RESULT", result).replace("WRAPPER", wrapper).replace("JUDGE", judge)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALIGNZOO_CACHE", str(tmp_path / "cache"))


def test_a_method_that_keeps_the_contract(az: Az, add_plugin: AddPlugin) -> None:
    plugins = add_plugin("honest", source())
    ended = az("check", "gap", plugins=plugins)
    assert ended.returncode == 0, ended.stdout
    assert "loss gap (honest 1.0): 12 passed, 1 skipped" in ended.stdout.splitlines()
    listed = json.loads(az("ls", "--json", plugins=plugins).stdout)["methods"]
    states = {method["name"]: method["contract"]["state"] for method in listed if method["contract"]}
    assert states == {"gap": "passed"}
    module = plugins / "honest.py"
    module.write_text(module.read_text() + "# edited\n")
    assert "changed since 20" in az("ls", "--wide", plugins=plugins).stdout


def test_a_lie_is_named_with_its_rule(az: Az, add_plugin: AddPlugin) -> None:
    plugins = add_plugin("liar", source(result="F.softplus(rejected - chosen).mean()"))
    ended = az("check", "gap", plugins=plugins)
    assert ended.returncode == 1
    assert "failed: loss 'gap' breaks one-value-per-pair" in ended.stdout
    assert "Traceback" not in ended.stdout + ended.stderr
    assert "failed 20" in az("ls", "--wide", plugins=plugins).stdout
    facts = json.loads(az("check", "liar:gap", "--json", plugins=plugins).stdout)
    assert not facts["ok"]
    [checked] = facts["checked"]
    assert (checked["distribution"], checked["kind"], checked["ok"]) == ("liar", "loss", False)
    assert "one-value-per-pair" in {o["rule"] for o in checked["outcomes"] if o["status"] == "failed"}


@pytest.mark.parametrize(
    ("result", "rules", "cause"),
    [
        ("F.softplus(rejected - chosen) * float('nan')", "one-value-per-pair", "found nan among them"),
        ("F.softplus(rejected - chosen).half()", "one-value-per-pair", "found dtype torch.float16"),
        ("F.softplus(rejected - x)", "declared-fields, one-value-per-pair", "NameError: name 'x' is not defined"),
    ],
)
def test_one_cause_is_said_first_and_once(az_here: Az, tmp_path: Path, result: str, rules: str, cause: str) -> None:
    file = tmp_path / f"lame_{abs(hash(result))}.py"
    file.write_text(source(result=result))
    ended = az_here("check", str(file), "--kind", "loss")
    assert ended.returncode == 1
    [failure] = [line for line in ended.stdout.splitlines() if line.startswith("failed: ")]
    assert failure.startswith(f"failed: loss 'gap' breaks {rules}: ")
    assert failure.endswith(cause)
    [skipped] = [line for line in ended.stdout.splitlines() if line.startswith("skipped: ")]
    assert "gradcheck, finite, permutation" in skipped
    assert skipped.endswith(": one-value-per-pair is broken")


def test_a_file_or_distribution_without_methods_is_an_error(az_here: Az, tmp_path: Path) -> None:
    for name, text in (("nothing_here.py", "x = 1"), ("no_loss.py", source().replace("'loss'", "'robust'"))):
        (tmp_path / name).write_text(text)
    for words, said in (
        (["nothing_here.py"], "provides nothing to check"),
        (["nothing_here.py", "dpo"], "provides nothing to check"),
        (["no_loss.py", "--kind", "geometry"], "provides no geometry to check"),
    ):
        ended = az_here("check", *(str(tmp_path / word) if word.endswith(".py") else word for word in words))
        assert ended.returncode == 2
        assert words[0] in ended.stderr
        assert said in ended.stderr


def test_a_distribution_is_checked_with_all_that_it_brings(az: Az, add_plugin: AddPlugin) -> None:
    plugins = add_plugin("careless", source(wrapper="'absent'", judge="absent"))
    ended = az("check", "careless", plugins=plugins)
    assert ended.returncode == 1
    assert "loss gap (careless 1.0): 12 passed, 1 skipped" in ended.stdout.splitlines()
    assert "failed: composition 'gap-mix' breaks resolves: unknown robust 'absent'" in ended.stdout
    assert "failed: judge 'eye' breaks target: judge 'eye' does not load from careless:absent" in ended.stdout
    sound = az("check", "sound", "--json", plugins=add_plugin("sound", source().replace("gap", "cap")))
    assert sound.returncode == 0, sound.stdout
    checked = json.loads(sound.stdout)["checked"]
    assert [(one["kind"], one["name"]) for one in checked] == [
        ("loss", "cap"),
        ("composition", "cap-mix"),
        ("judge", "eye"),
    ]


def test_a_file_is_checked(az: Az, tmp_path: Path) -> None:
    file = tmp_path / "gap_in_a_file.py"
    file.write_text(source())
    assert az("check", str(file)).returncode == 0
    assert "passed 20" in az("ls", "--wide", "--plugin", str(file)).stdout
    assert az("check", "gap", "--plugin", str(file)).returncode == 0


def test_single_rules_are_checked_and_not_remembered(az: Az, add_plugin: AddPlugin) -> None:
    plugins = add_plugin("liar", source(result="F.softplus(rejected - chosen).mean()"))
    one = az("check", "gap", "--rule", "declared-fields", "--json", plugins=plugins)
    assert one.returncode == 0, one.stdout
    [checked] = json.loads(one.stdout)["checked"]
    assert [outcome["rule"] for outcome in checked["outcomes"]] == ["declared-fields"]
    assert "passed 20" not in az("ls", "--wide", plugins=plugins).stdout
    unknown = az("check", "gap", "--rule", "gradchek", plugins=plugins)
    assert unknown.returncode == 2
    assert "did you mean gradcheck" in unknown.stderr


def test_wrong_calls(az: Az, add_plugin: AddPlugin) -> None:
    plugins = add_plugin("broken-one", "raise RuntimeError('no')")
    assert az("check").returncode == 2
    unknown = az("check", "dpp")
    assert unknown.returncode == 2
    assert "did you mean dpo" in unknown.stderr
    composed = az("check", "drdpo", "--kind", "loss")
    assert composed.returncode == 2
    assert "--loss dpo --robust drdpo" in composed.stderr
    broken = az("check", "broken-one", plugins=plugins)
    assert broken.returncode == 4
    assert "RuntimeError: no" in broken.stderr
