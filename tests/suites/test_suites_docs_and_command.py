"""The page on suites agrees with their files, and the command shows both."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from in_process import call_main

from alignzoo.evaluate.suites.jailbreaks import find_jailbreak, jailbreak_names
from alignzoo.evaluate.suites.suite import Suite, find_suite, suite_names
from alignzoo.evaluate.suites.suite_file import SuiteFacts

PAGE = (Path(__file__).parents[2] / "docs" / "suites.md").read_text(encoding="utf-8")


def table(heading: str) -> list[list[str]]:
    """The cells of the first table below a heading, without its head."""
    lines = PAGE.partition(f"## {heading}\n")[2].partition("\n## ")[0].splitlines()
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines if line.startswith("| `")]


def row(suite: Suite) -> list[str]:
    data = f"`{suite.hub}`" if suite.hub else f"`{suite.facts.save_as}`" if suite.facts.save_as else "generated"
    measured = {"attack_success": "attack success", "over_refusal": "over-refusal"}[suite.measures]
    gated = " (gated)" if suite.facts.gated else ""
    about = [f"`{suite.name}`", suite.title, f"{measured}, {suite.counts or '?'}", suite.licence]
    return [*about, data + gated, suite.judge]


def test_the_table_says_what_the_files_say() -> None:
    assert table("The suites") == [row(find_suite(name)) for name in suite_names()]


def test_the_jailbreaks_are_listed() -> None:
    assert table("Jailbreaks") == [[f"`{name}`", find_jailbreak(name).summary] for name in jailbreak_names()]


def test_every_field_of_a_suite_is_described() -> None:
    named = {name for cells in table("A suite of your own") for name in re.findall(r"`(\w+)`", cells[0])}
    assert named == set(SuiteFacts.model_fields)


def test_the_list_says_what_is_here(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "xstest_prompts.csv").touch()
    done = call_main(["suites", "--data-dir", str(tmp_path)], capfd)
    here = {line.split()[0]: line.split()[-1] for line in done.stdout.splitlines()[1:]}
    assert (here["xstest"], here["sandbox-test"], here["salad-bench"]) == ("files", "made", "hub")
    assert (here["sorry-bench"], here["strongreject"]) == ("gated", "fetch")
    facts = json.loads(call_main(["suites", "list", "--json"], capfd).stdout)["suites"]
    assert [suite["name"] for suite in facts] == suite_names()
    assert next(suite for suite in facts if suite["name"] == "xstest")["data"] is None


def test_show_prints_facts_and_prompts(capfd: pytest.CaptureFixture[str]) -> None:
    done = call_main(["suites", "sandbox-test"], capfd)
    assert done.returncode == 0
    assert "256 prompts from alignzoo_sandbox.suite:rows" in done.stdout
    facts = json.loads(call_main(["suites", "show", "sandbox-test", "--json"], capfd).stdout)
    assert (facts["measures"], facts["found"]["prompts"], len(facts["examples"])) == ("attack_success", 256, 3)
    absent = call_main(["suites", "show", "strongreject"], capfd)
    assert absent.returncode == 0
    assert "download https://" in absent.stdout


def test_path_is_for_the_include_path_of_lm_eval(capfd: pytest.CaptureFixture[str]) -> None:
    folder = Path(call_main(["suites", "path"], capfd).stdout.strip())
    assert (folder / "harmbench.yaml").is_file()
    assert call_main(["suites", "path", "xstest"], capfd).stdout.strip() == str(folder / "xstest.yaml")


def test_an_unknown_name_is_rejected_with_the_nearest(capfd: pytest.CaptureFixture[str]) -> None:
    done = call_main(["suites", "harmbnch"], capfd)
    assert (done.returncode, "did you mean harmbench" in done.stderr) == (2, True)
