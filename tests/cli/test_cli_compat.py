"""``compat``: one combination, one method, and all methods."""

import json
import re

import pytest
from cli_helpers import AddPlugin, Az, card_source, plugin_source

from alignzoo.contract.card import Card
from alignzoo.contract.kinds import KINDS
from alignzoo.plugin import list_methods


def test_compat_says_why_and_what_it_costs(az_here: Az) -> None:
    words = ["compat", "--loss", "drdpo", "--geometry", "shapo-token"]
    text = az_here(*words, "--batch-size", "64", "--micro-batch-size", "16").stdout
    assert text.startswith("works: --loss dpo --robust drdpo --geometry shapo-token\n")
    assert "--loss drdpo is short for --loss dpo --robust drdpo" in text
    assert "loss dpo needs reference log-probs: computed once before training" in text
    assert "4 micro-batches" in text
    assert "2 forward-backward passes" in text
    assert "if --tokens-per-micro-batch splits it" in az_here(*words, "--tokens-per-micro-batch", "900").stdout
    facts = json.loads(az_here(*words, "--batch-size", "8", "--micro-batch-size", "8", "--json").stdout)
    assert facts["ok"]
    assert facts["needs"] == ["probe", "reference"]
    assert facts["micro_batches"] == 1
    assert any("at no extra cost" in reason for reason in facts["reasons"])


@pytest.mark.parametrize(
    ("words", "environment", "code", "said"),
    [
        (["--robust", "drdpo", "--robust", "drdpo"], {}, 3, "name each method once"),
        (["--geometry", "shapo-token"], {"ACCELERATE_USE_DEEPSPEED": "true"}, 3, "shard with FSDP2"),
        (["--loss", "dpo", "--lora.alpha", "3"], {}, 2, "add --lora.r 8"),
        (["--loss", "dpp"], {}, 2, "did you mean dpo"),
    ],
)
def test_compat_says_why_not(az_here: Az, words: list[str], environment: dict[str, str], code: int, said: str) -> None:
    ended = az_here("compat", *words, **environment)
    assert ended.returncode == code
    assert ended.stdout.startswith("no: ")
    assert said in ended.stdout
    facts = json.loads(az_here("compat", *words, "--json", **environment).stdout)
    assert not facts["ok"]
    assert facts["error"]["exit_code"] == code
    assert said in facts["problems"][0]["hint"]


def test_compat_needs_no_model_and_names_one_cause_once(az_here: Az) -> None:
    ended = az_here("compat", "--loss", "dpo", "--data", "pairs.jsonl")
    assert (ended.returncode, ended.stdout.splitlines()[0]) == (0, "works: --loss dpo --geometry plain")
    problems = json.loads(az_here("compat", "--loss", "sft", "--robust", "soft-label", "--json").stdout)["problems"]
    assert [problem["message"] for problem in problems] == [
        "robust 'soft-label' wraps losses that read pairs, but loss 'sft' reads chosen"
    ]
    assert "loss sft reads the responses to imitate: any data" in az_here("compat", "--loss", "sft").stdout


def test_compat_without_methods_lists_what_cannot_be_combined_and_why(az_here: Az) -> None:
    text = az_here("compat").stdout
    assert max(len(line) for line in text.splitlines()) <= 100
    said = " ".join(text.split())
    for part in (
        "Aggregations humanline",
        "at most one of cdpo, dpo-pro",
        "only one can replace the data's labels",
        "not with loss cpo, door, orpo",
        "the loss must be defined under the opposite label",
        "not with aggregation humanline",
        "not after robust wdpo-winsor: a wrapper that takes the mean over the step must be the last",
        "only one can choose where the gradient is taken",
        "tr-dpo not with loss",
    ):
        assert part in said
    sections = re.split(r"\n\n(?=[A-Z])", text)[1:]
    titles = [section.splitlines()[0] for section in sections]
    kinds = ("aggregation", "robust", "geometry", "reward", "selector", "judge")
    assert titles == [KINDS[kind].title for kind in kinds]
    for kind, section in zip(kinds, sections, strict=True):
        for card in (card for card in list_methods(kind) if isinstance(card, Card)):
            assert re.search(rf"(^|[ ,]){card.name}(,|$|:)", section, re.MULTILINE), (kind, card.name)


def test_compat_without_methods_as_json_has_every_pair_with_its_reason(az_here: Az) -> None:
    facts = json.loads(az_here("compat", "--json").stdout)
    assert facts["unusable"] == []
    assert all(pair["rule"] and pair["message"] and pair["hint"] for pair in facts["refused"])
    found = {tuple(f"{m['kind']} {m['name']}" for m in pair["methods"]): pair for pair in facts["refused"]}
    assert found["loss cpo", "robust cdpo"]["rule"] == "the loss must be defined under the opposite label"
    assert found["loss alphapo", "aggregation sampo"]["rule"] == "the loss is defined under mean only"
    assert found["loss cpo", "geometry tr-dpo"]["order"] == "any"
    assert found["robust wdpo-winsor", "robust wdpo"]["order"] == "this"
    assert ("robust wdpo", "robust wdpo-winsor") not in found


def test_compat_of_one_method_also_lists_what_it_cannot_be_combined_with(az_here: Az) -> None:
    lines = az_here("compat", "--robust", "wdpo").stdout.splitlines()
    assert lines[0] == "works: --loss dpo --robust wdpo --geometry plain"
    at = lines.index("robust wdpo can be combined with everything, but not")
    said = " ".join(" ".join(lines[at:]).split())
    assert "with loss alpha-dpo, aot" in said
    assert "with aggregation humanline, ld, otpo, sampo, tis-dpo: log-probs must be sums or means over tokens" in said
    assert "after robust wdpo-winsor" in said
    facts = json.loads(az_here("compat", "--robust", "wdpo", "--json").stdout)
    assert facts["ok"]
    assert all({"kind": "robust", "name": "wdpo"} in pair["methods"] for pair in facts["refused"])
    assert az_here("compat", "--loss", "dpo").stdout.endswith("loss dpo can be combined with everything\n")
    assert "can be combined with" not in az_here("compat", "--loss", "dpo", "--robust", "wdpo").stdout


def test_compat_of_one_method_lists_losses_where_the_default_is_none(az: Az, add_plugin: AddPlugin) -> None:
    plugins = add_plugin("for-lists", plugin_source(card_source("robust", "listy", around=frozenset({"lists"}), api=2)))
    ended = az("compat", "--robust", "listy", plugins=plugins)
    assert ended.returncode == 3
    assert ended.stdout.startswith("no: robust 'listy' wraps losses that read lists, but loss 'dpo' reads pairs\n")
    refused = json.loads(az("compat", "--robust", "listy", "--json", plugins=plugins).stdout)["refused"]
    losses = {m["name"] for pair in refused for m in pair["methods"] if m["kind"] == "loss"}
    reads = {card.name: card.reads for card in list_methods("loss") if isinstance(card, Card)}
    assert losses == {name for name, read in reads.items() if read != "lists"}


def test_compat_on_a_launch_that_runs_nothing_says_so_once(az_here: Az) -> None:
    ended = az_here("compat", ACCELERATE_USE_DEEPSPEED="true")
    assert ended.returncode == 3
    assert ended.stdout.startswith("no: runs under DeepSpeed are not supported")
    assert ended.stdout.count("DeepSpeed") == 1
