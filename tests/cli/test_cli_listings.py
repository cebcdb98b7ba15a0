"""``ls`` and ``info``."""

import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from cli_helpers import AddPlugin, Az, card_source, plugin_source

from alignzoo.cli.console import print_table
from alignzoo.cli.describe import parts_of
from alignzoo.contract.card import Card, Composition
from alignzoo.plugin import list_methods
from alignzoo.plugin.registry import registry


def _rows(text: str) -> dict[tuple[str, str], str]:
    """The line of each method in the output of ``ls``, by kind and name."""
    found: dict[tuple[str, str], str] = {}
    kind = ""
    for line in text.splitlines():
        if title := re.fullmatch(r"[A-Z][\w ]+ \(--(\w+)\): .*", line):
            kind = title[1]
        elif line.startswith("   "):
            found[kind, line.split()[0]] = line
    return found


def _mark(method: Card | Composition) -> str:
    parts = [method] if isinstance(method, Card) else parts_of(registry().plugin_of(method), method)
    return "⚗" if any(part.experimental for part in [method, *parts]) else "✓"


def test_ls_shows_every_method_in_a_line_under_its_kind_and_family(az_here: Az) -> None:
    text = az_here("ls").stdout
    lines, rows = text.splitlines(), _rows(text)
    assert sorted(rows) == sorted((method.kind, method.name) for method in list_methods())
    for method in list_methods():
        name, mark, *rest = rows[method.kind, method.name].split()
        assert (name, mark) == (method.name, _mark(method))
        assert rest[0] == (str(method.paper.year) if method.paper else method.summary.split()[0])
    assert max(map(len, lines)) <= 100
    assert not set("│─┃━…") & set("".join(lines)), "no summary is truncated at 100 columns"
    families = {method.family for method in list_methods() if method.family and not method.experimental}
    assert {f" {family}" for family in families} <= set(lines)


def test_summaries_start_with_a_capital_and_have_no_full_stop() -> None:
    for method in list_methods():
        first = method.summary.split()[0]
        assert any(letter.isupper() for letter in first), method.summary  # a name may begin with a small letter: f-DPO
        assert not method.summary.endswith("."), method.summary


def test_ls_shortens_summaries_at_words(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(["name", "summary", "from"], [["x", "long " * 40, "here"], ["y", "short", "there"]], shorten="summary")
    long, short = capsys.readouterr().out.splitlines()[1:]
    assert re.fullmatch(r"x\s+(long )+long…\s+here", long)
    assert 90 <= len(long) <= 100
    assert re.fullmatch(r"y\s+short\s+there", short)


def test_the_mark_is_of_methods_that_were_verified(az: Az, add_plugin: AddPlugin) -> None:
    cards = (card_source("loss", "unproven"), card_source("loss", "doubtful", experimental="one run by its authors"))
    plugins = add_plugin("some-dist", plugin_source(*cards))
    text = az("ls", plugins=plugins).stdout
    rows = _rows(text)
    assert "✓" not in rows["loss", "unproven"]
    assert rows["loss", "unproven"].endswith("some-dist 1.0")
    assert "✓" in rows["loss", "dpo"]
    assert rows["loss", "doubtful"].split()[1] == "⚗"
    lines = text.splitlines()
    assert lines[lines.index(" other, experimental") + 1] == rows["loss", "doubtful"]
    assert re.search(r"\b\d+ experimental ⚗", lines[0])
    assert "one run by its authors" in az("info", "doubtful", plugins=plugins).stdout


@pytest.mark.parametrize(
    ("words", "all_have"),
    [
        (["--no-reference"], lambda m: "reference" not in m["needs"]),
        (["--needs", "reference", "--needs", "labels"], lambda m: {"reference", "labels"} <= set(m["needs"])),
        (["--unpaired"], lambda m: m.get("reads", "responses") in ("responses", "chosen") and m["kind"] != "geometry"),
        (["--reads", "lists"], lambda m: m.get("reads") == "lists" or "lists" in m.get("around", ["lists"])),
        (["loss", "--verified", "--no-experimental"], lambda m: m["kind"] == "loss" and not m["experimental"]),
        (["--family", "squared"], lambda m: m["family"] == "squared losses"),
        (
            ["loss", "plackett"],
            lambda m: m["kind"] == "loss" and "plackett" in m["summary"].lower(),
        ),
        (["rafailov"], lambda m: any("Rafailov" in author for author in m["paper"]["authors"])),
    ],
    ids=lambda words: " ".join(words) if isinstance(words, list) else "",
)
def test_filters_leave_only_what_they_ask_for(
    az_here: Az, words: list[str], all_have: Callable[[dict[str, Any]], bool]
) -> None:
    methods = json.loads(az_here("ls", *words, "--json").stdout)["methods"]
    assert methods
    assert all(all_have(method) for method in methods)
    assert len(methods) < len(list_methods())
    shown = _rows(az_here("ls", *words).stdout)
    assert sorted(shown) == sorted((method["kind"], method["name"]) for method in methods)


def test_words_are_found_in_names_problems_families_and_papers(az: Az, add_plugin: AddPlugin) -> None:
    cards = (
        card_source("loss", "short", addresses={"length-bias"}),
        card_source("loss", "named", aliases=("length-thing",)),
        card_source("loss", "tidy", family="biased things"),
    )
    plugins = add_plugin("some-dist", plugin_source(*cards))
    rows = _rows(az("ls", "length", "bias", plugins=plugins).stdout)
    assert "short" in [name for _, name in rows]
    assert not {"named", "tidy", "ipo"} & {name for _, name in rows}
    assert "named" in [name for _, name in _rows(az("ls", "length", plugins=plugins).stdout)]
    assert "tidy" in [name for _, name in _rows(az("ls", "biased", plugins=plugins).stdout)]
    assert "short" in [name for _, name in _rows(az("ls", "--for", "length-bias", plugins=plugins).stdout)]


@pytest.mark.parametrize(
    ("typed", "name"),
    [("sigmoid_norm", "dpo-norm"), ("exo_pair", "exo-pair"), ("sppo_hard", "sppo-hard"), ("aot_pair", "aot-unpaired")],
)
def test_other_trainers_names_find_methods(az_here: Az, typed: str, name: str) -> None:
    assert list(_rows(az_here("ls", typed).stdout)) == [("loss", name)]
    assert az_here("info", typed).stdout.startswith(f"loss {name}: ")
    assert f"--loss {name} " in az_here("run", "--loss", typed, "--dry-run").stdout


def test_the_plural_of_a_kind_lists_it(az_here: Az) -> None:
    assert az_here("ls", "losses").stdout == az_here("ls", "loss").stdout
    assert az_here("ls", "Robust wrappers").stdout == az_here("ls", "robust").stdout


def test_what_finds_nothing_says_what_would_match(az_here: Az) -> None:
    ended = az_here("ls", "loss", "--needs", "reference", "--no-reference")
    assert ended.returncode == 2
    assert re.search(r"without --needs reference: \d+ methods?; without --no-reference: \d+ method", ended.stderr)
    assert "label-noise, length-bias" in az_here("ls", "--for", "xyz").stderr
    assert "did you mean label-noise?" in az_here("ls", "--for", "label-nose").stderr
    assert "did you mean reference" in az_here("ls", "--needs", "referense").stderr
    assert "squared losses" in az_here("ls", "--family", "round").stderr


def test_ls_json_counts_by_kind(az_here: Az) -> None:
    listed = json.loads(az_here("ls", "--json").stdout)
    for kind, count in listed["counts"].items():
        of_kind = [method for method in listed["methods"] if method["kind"] == kind]
        assert count["all"] == len(of_kind)
        assert count["experimental"] == sum(bool(method["experimental"]) for method in of_kind)
        assert count["verified"] <= count["all"]


def test_a_composition_shows_the_needs_of_its_parts(az_here: Az) -> None:
    [drdpo] = json.loads(az_here("info", "drdpo", "--kind", "loss", "--json").stdout)["methods"]
    assert drdpo["needs"] == ["reference"]
    lines = az_here("info", "drdpo", "--kind", "loss").stdout.splitlines()
    assert ["needs", "reference"] in [line.split() for line in lines]
    [row] = [line for line in az_here("ls", "loss", "--wide").stdout.splitlines() if line.split()[1:2] == ["drdpo"]]
    assert "reference" in row


def test_info_of_a_composition_shows_the_options_of_its_parts(az_here: Az) -> None:
    [found] = json.loads(az_here("info", "shapo-reward", "--json").stdout)["methods"]
    flags = [option["flag"] for option in found["options"]]
    assert {"--geometry.rho", "--robust.k"} <= set(flags)
    listed = [line.split()[0] for line in az_here("info", "shapo-reward").stdout.splitlines() if line.startswith("--")]
    assert listed == flags


def test_ls_wide_shows_every_method_with_its_facts(az: Az) -> None:
    ended = az("ls", "--wide")
    assert (ended.returncode, ended.stderr) == (0, "")
    rows = {tuple(line.split()[:2]): line for line in ended.stdout.splitlines()}
    assert {(method.kind, method.name) for method in list_methods()} < set(rows)
    assert "= --loss dpo --robust drdpo" in rows["loss", "drdpo"]
    assert "reference" in rows["loss", "dpo"]
    assert "TRL 1.16" in rows["loss", "dpo"]
    assert "\x1b" not in ended.stdout
    assert not set("│─┃━") & set(ended.stdout)


def test_ls_of_one_kind_as_json(az_here: Az) -> None:
    listed = json.loads(az_here("ls", "loss", "--json").stdout)
    assert listed["broken"] == []
    assert {method["kind"] for method in listed["methods"]} == {"loss"}
    by_name = {method["name"]: method for method in listed["methods"]}
    assert by_name["dpo"]["options"][0]["flag"] == "--loss.beta"
    assert by_name["dpo"]["options"][0]["bounds"] == {">": 0}
    assert "TRL 1.16" in [source["against"] for source in by_name["dpo"]["verified"]]
    assert by_name["drdpo"]["stands_for"] == "--loss dpo --robust drdpo"


def test_info_shows_all_of_a_name(az_here: Az) -> None:
    text = az_here("info", "drdpo").stdout
    assert "loss drdpo: " in text
    assert "robust drdpo: " in text
    for fact in ("--loss dpo --robust drdpo", "log mean", "arXiv 2407.07880", "https://arxiv.org/abs/2407.07880"):
        assert fact in text
    for fact in ("--robust.beta_prime", "> 0", "alignzoo_robust.drdpo:DrDPO", "test_drdpo_equals_golden_value"):
        assert fact in text
    only = json.loads(az_here("info", "drdpo", "--kind", "robust", "--json").stdout)["methods"]
    assert [(method["kind"], method["batch_coupled"]) for method in only] == [("robust", True)]


def test_info_says_what_the_default_options_need(az_here: Az) -> None:
    [method] = json.loads(az_here("info", "shapo-token", "--json").stdout)["methods"]
    assert method["needs"] == ["probe"]
    assert method["passes"] == 2


def test_listings_say_what_is_required_and_what_runs_on_shards(az_here: Az) -> None:
    [hf] = json.loads(az_here("info", "hf", "--json").stdout)["methods"]
    assert {option["name"]: option["required"] for option in hf["options"]}["model"]
    assert not {"passes", "sharded", "swaps", "relabels", "batch_coupled"} & set(hf)
    text = az_here("info", "hf").stdout
    assert ["--reward.model", "TEXT", "required"] in [line.split()[:3] for line in text.splitlines()]
    assert "sharded" not in text
    named = az_here("run", "--geometry", "shapo-reward", "--reward", "hf", "--help").stdout
    assert "hub id or folder of a sequence classifier with one output [required]" in " ".join(named.split())
    [sam] = json.loads(az_here("info", "sam", "--json").stdout)["methods"]
    assert sam["sharded"]
    assert "  sharded weights   yes, under FSDP2" in az_here("info", "sam").stdout


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["info", "shapo-tokn"], "did you mean shapo-token"),
        (["info", "zzzzz"], "`alignzoo ls` lists the methods"),
        (["ls", "los"], "did you mean loss?"),
        (["rnu"], "did you mean run?"),
        (["recipes", "shw"], "did you mean show?"),
        (["ls", "--jsn"], "did you mean --json?"),
        (["info"], "`alignzoo info --help`"),
        (["probe"], "`alignzoo probe --help`"),
        (["probe", "--out", "x", "--seed", "-1"], "greater than or equal to 0"),
        (["probe", "--out", "x", "--max-length", "9", "--max-prompt-length", "9"], "leaves no room for a response"),
    ],
    ids=lambda words: " ".join(words) if isinstance(words, list) else "",
)
def test_wrong_words_exit_2_with_what_to_do(az_here: Az, words: list[str], hint: str) -> None:
    ended = az_here(*words)
    assert ended.returncode == 2
    assert ended.stdout == ""
    assert ended.stderr.startswith("error: ")
    assert hint in ended.stderr
    assert "Traceback" not in ended.stderr
