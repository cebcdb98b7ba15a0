"""The kit itself: reports, expected failures, names, and what it takes to import it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import honest
import liars
import pytest
from liars import REFERENCE, card

from alignzoo.errors import UsageError
from alignzoo.plugin import KINDS, Card, registry
from alignzoo.plugin.plugin import Plugin
from alignzoo.plugin.registry import Registry
from alignzoo.testing import RULES, ContractError, check_method, checks, checks_for, contract

REASON = "the paper detaches the rejected side"
QUICK = ["gradcheck", "swap"]


def detached(**reasons: str) -> Card:
    return card(liars.Detached, needs=REFERENCE, expected_failures=reasons)


def test_importing_the_kit_imports_neither_torch_nor_pytest() -> None:
    code = "import sys, alignzoo.testing; print([n for n in ('torch', 'pytest', 'transformers') if n in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"


def test_every_rule_has_a_name_of_its_own_and_one_line_about_it() -> None:
    assert set(RULES) == set(KINDS)
    for rules in RULES.values():
        assert len({rule.name for rule in rules}) == len(rules)
        assert all(rule.summary and "\n" not in rule.summary for rule in rules)


def test_the_report_is_data() -> None:
    report = check_method("dpo", rules=QUICK)
    assert report.ok
    assert [outcome.status for outcome in report.outcomes] == ["passed", "passed"]
    as_dict = json.loads(json.dumps(report.to_dict()))
    assert (as_dict["kind"], as_dict["name"], as_dict["ok"]) == ("loss", "dpo", True)
    assert as_dict["outcomes"][0]["rule"] == "gradcheck"


def test_a_failure_as_expected_is_no_failure() -> None:
    report = check_method(detached(gradcheck=REASON), rules=QUICK)
    assert report.ok
    assert [(o.rule, o.status) for o in report.outcomes] == [("gradcheck", "expected"), ("swap", "passed")]
    assert report.outcomes[0].detail == REASON


def test_a_rule_that_is_kept_after_all_fails() -> None:
    report = check_method(detached(gradcheck=REASON, swap="so I thought"), rules=QUICK)
    assert not report.ok
    (outcome,) = [outcome for outcome in report.outcomes if outcome.status == "unexpected"]
    assert outcome.detail == "swap passes: remove it from the card's expected_failures"


def test_an_expected_failure_of_no_rule_fails() -> None:
    check = next(check for check in checks_for(detached(gradchek=REASON)) if check.rule == "expected-failures")
    with pytest.raises(ContractError, match=r"breaks expected-failures: .*found 'gradchek'\n  did you mean gradcheck"):
        check()


def test_an_expected_failure_of_a_rule_that_the_card_does_not_have_fails() -> None:
    check = checks_for(detached(ranks="there is no coupling"))[-1]
    with pytest.raises(ContractError, match="found 'ranks'"):
        check()


def test_what_the_decorator_makes() -> None:
    mark = contract(detached(gradcheck=REASON), "simpo").mark
    assert mark.name == "parametrize"
    params = {param.id: param for param in mark.args[1]}
    assert "loss-simpo-finite" in params
    (xfail,) = params["loss-detached-gradcheck"].marks
    assert xfail.kwargs == {"strict": True, "raises": ContractError, "reason": REASON}
    assert not params["loss-detached-swap"].marks


def test_in_pytest(tmp_path: Path) -> None:
    """As an author sees it: passed, expected, kept after all, skipped, and a lie."""
    (tmp_path / "test_mine.py").write_text(
        "import liars\n"
        "from liars import REFERENCE, card\n"
        "from alignzoo.testing import contract\n"
        "CARDS = [\n"
        "    card(liars.Detached, needs=REFERENCE, expected_failures={'gradcheck': 'why', 'swap': 'why not'}),\n"
        "    card(liars.Flip, needs={'swap'}),\n"
        "    card(liars.Overflowing, needs=REFERENCE),\n"
        "]\n"
        "@contract(*CARDS)\n"
        "def test_contract(check):\n"
        "    check()\n"
    )
    wanted = "gradcheck or swap or finite or weights-are-the-gradient"
    command = [sys.executable, "-m", "pytest", "-q", "-rA", "-p", "no:cacheprovider", "-k", wanted, str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    ended = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path)
    lines = ended.stdout.splitlines()
    assert ended.returncode == 1
    for expected in (
        "PASSED test_mine.py::test_contract[loss-detached-finite]",
        "XFAIL test_mine.py::test_contract[loss-detached-gradcheck] - why",
        "FAILED test_mine.py::test_contract[loss-detached-swap]",
        "FAILED test_mine.py::test_contract[loss-overflowing-finite]",
    ):
        assert any(line.startswith(expected) for line in lines), expected
    assert sum(line.startswith("FAILED") for line in lines) == 2
    assert "[XPASS(strict)] why not" in ended.stdout
    assert any(line.startswith("SKIPPED") and "weights() is not overridden" in line for line in lines)


def test_a_plugin_that_is_one_file(tmp_path: Path) -> None:
    """Loaded by its path, under a name that no path finder knows: fresh interpreters and ranks get it as well."""
    path = tmp_path / "my_wrapper.py"
    path.write_text(
        "from pydantic import Field\n"
        "from alignzoo.interfaces import RobustWrapper\n"
        "from alignzoo.plugin import Card, Options, hookimpl\n"
        "class MineOptions(Options):\n"
        "    factor: float = Field(2.0, gt=0, description='on every value')\n"
        "class Mine(RobustWrapper):\n"
        "    def per_pair(self, loss, pairs):\n"
        "        return self.options.factor * loss(pairs)\n"
        "CARD = Card(kind='robust', name='mine', target='my_wrapper:Mine', options=MineOptions, summary='-',\n"
        "            formula='-')\n"
        "@hookimpl\n"
        "def alignzoo_methods():\n"
        "    return [CARD]\n"
    )
    from alignzoo.plugin import plugins_from

    with plugins_from(path):
        report = check_method("mine")
    assert report.ok, report.to_dict()


def test_a_card_that_cannot_reach_another_process() -> None:
    class Local(liars.Temperature):
        pass

    local = card(liars.SoftMinimum, options=Local, batch_coupled=True, aggregates=True)
    (outcome,) = check_method(local, rules=["ranks"]).outcomes
    assert "define the options class at the top of a module" in outcome.detail


def test_a_failure_on_a_rank_leaves_the_next_check_working() -> None:
    assert not check_method(card(liars.FailsOnRankOne), rules=["ranks"]).ok
    assert check_method("drdpo", rules=["ranks"]).ok


def test_a_refusal_of_adapters_is_no_failure_but_is_told() -> None:
    (outcome,) = check_method(card(honest.NoAdapters), rules=["lora"]).outcomes
    assert (outcome.status, outcome.detail[:7]) == ("skipped", "refused")


def test_names(monkeypatch: pytest.MonkeyPatch) -> None:
    assert check_method("alignzoo:dpo", rules=["swap"]).name == "dpo"
    with pytest.raises(UsageError, match="unknown loss 'nothing'"):
        check_method("nothing")
    with pytest.raises(UsageError, match="has no rule 'gradchek'") as error:
        check_method("dpo", rules=["gradchek"])
    assert error.value.hint == "did you mean gradcheck?"
    dpo = registry().find("loss", "dpo")
    wrapper = card(liars.Flip, name="dpo")
    plugins = [Plugin("one", "1", "one", "one", [dpo]), Plugin("two", "1", "two", "two", [wrapper])]
    monkeypatch.setattr(checks, "registry", lambda: Registry(plugins))
    with pytest.raises(UsageError, match="'dpo' is the name of several methods: a loss, a robust") as error:
        check_method("dpo")
    assert error.value.hint == "say which: kind='loss' or kind='robust'"
    assert check_method("dpo", kind="robust", rules=["shapes"]).kind == "robust"
    assert check_method("two:dpo", rules=["shapes"]).kind == "robust"
