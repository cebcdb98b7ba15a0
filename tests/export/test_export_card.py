"""Model cards: facts of the run, valid metadata, and nothing from the data that Markdown would act on."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from alignzoo_export.card import hub_id
from alignzoo_export.card_evaluation import evaluation_section, not_measured
from alignzoo_export.markdown import block, code, text
from export_helpers import Az, MakeModel
from huggingface_hub import ModelCard, metadata_load

from alignzoo.base.files import write_json
from alignzoo.base.stored import read_object, read_sealed, sealed
from alignzoo.evaluate.results import (
    Against,
    Agreement,
    Difference,
    Evaluation,
    Figure,
    JudgeFacts,
    ModelFacts,
    Rate,
    SuiteFacts,
    write_evaluation,
)
from alignzoo.evaluate.tasks.task_results import Metric, TaskResult, TaskResults


def evaluation_of(there: str) -> Evaluation:
    """Two judges on a part of a suite, with a comparison and a task."""
    model = ModelFacts("/home/me/run/model", "a1", "fp32", "none", "the tokenizer's chat template")
    suite = SuiteFacts(
        name="xstest",
        suite="xstest",
        jailbreak=None,
        title="XSTest",
        measures="over_refusal",
        digest="d1",
        origin="hub",
        prompts=50,
        whole=250,
        decoding={"max_new_tokens": 256},
        cut=3,
        empty=0,
        tokens=20.0,
    )
    rate = Rate(5, 50, 0.1, 0.043, 0.214)
    names = ("refusal", "wildguard")
    task = TaskResult("arc_easy", {"acc,none": Metric(0.5123, 0.01, True)}, n=100, fewshot=0, version="1.0")
    return Evaluation(
        model=model,
        suites=(suite,),
        judges=tuple(JudgeFacts(name, f"zoo:{name}", "refusal", {}, "", f"limits of {name}") for name in names),
        figures=tuple(Figure("xstest", name, "over_refusal", rate, 1, 0.08) for name in names),
        agreement=(Agreement("xstest", *names, 50, 0.96, 0.8, 0.5, 1.0),),
        tasks=TaskResults({"arc_easy": task}, ("arc_easy",), lm_eval="0.4.13"),
        against=Against(
            replace(model, name=there),
            "against/base",
            (Difference("xstest", "refusal", 0.1, 0.04, 0.06, -0.01, 0.13, 50, 4, 1, 0.25),),
        ),
    )


@pytest.fixture
def card(exported: Path) -> str:
    return (exported / "README.md").read_text()


def test_the_hub_can_read_it(exported: Path) -> None:
    metadata = metadata_load(exported / "README.md")
    assert metadata == {
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["alignzoo", "alignment", "dpo", "cdpo"],
    }
    loaded = ModelCard.load(exported / "README.md")
    assert loaded.data.to_dict() == metadata
    assert loaded.text.strip().startswith("# safer")


def test_method_data_results_and_limits(run_folder: Path, card: str) -> None:
    result, data = read_sealed(run_folder / "result.json"), read_object(run_folder / "data.json")["train"]
    assert "A language model, fine-tuned from `sandbox` with the objective **dpo under cdpo** by [alignzoo]" in card
    assert "−log σ(β·[(log π_w − log π_ref,w) − (log π_l − log π_ref,l)])" in card
    assert "`epsilon=0.05`" in card
    assert f"| {data['rows']:,} | {data['kept']:,} |" in card
    assert data["kept"] < data["rows"]
    assert all(f"{text(reason)}: {entry['count']}" in card for reason, entry in data["dropped"].items())
    assert f"{result['after']['eval/rewards/accuracies']:.3f}" in card
    assert f"`{result['train_identity']}`" in card
    assert f"`{result['weights']}`" in card
    limits = card[card.index("## Limits") : card.index("## How to reproduce")]
    assert "One run with one seed (0)" in limits
    assert "and no generated response was judged" in limits
    assert "General capabilities (lm-eval tasks) were not measured" in limits
    assert "@inproceedings{rafailov2023dpo," in card
    assert "mitchell2023cdpo" in card
    assert "Add `license:`" in card


def test_the_command_line_starts_the_same_run(az: Az, card: str, run_folder: Path, tmp_path: Path) -> None:
    [line] = re.findall(r"^alignzoo run .*$", card, re.MULTILINE)
    assert str(run_folder.parent) not in card
    words = shlex.split(line)[1:]
    words[words.index("--data") + 1] = str(run_folder.parent / words[words.index("--data") + 1])
    planned = json.loads(az(*words, "--dry-run", "--json").stdout)
    then = read_object(run_folder / "result.json")["sentence"]
    assert planned["sentence"] == then
    assert planned["settings"]["lora.r"]["value"] == 4
    assert planned["robust"][0]["options"]["epsilon"]["value"] == 0.05


def test_what_comes_from_outside_is_text(card: str) -> None:
    assert "`my\\|pairs<b>.jsonl`" in card  # inside code, where only the cell's border counts
    assert text("<img src=x>|*[a](b)`\n# c") == r"&lt;img src=x&gt;\|\*\[a\](b)\`" + " # c"
    assert [text(start) for start in ("# a", "- a", "+0.1", "-0.1", "---")] == [
        r"\# a",
        r"\- a",
        "+0.1",
        "-0.1",
        r"\---",
    ]
    assert code("a`|b\n") == "`a'\\|b`"
    assert block("```\nrm -rf\n```").startswith("````\n")
    assert len(text("x" * 5000)) == 400


def test_displacement_and_evaluation_are_stated(az: Az, run_folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "moved"
    shutil.copytree(run_folder, run)
    result = read_sealed(run / "result.json")
    result["after"] |= {name: value - 9 for name, value in result["before"].items() if name.startswith("eval/logps/")}
    write_json(run / "result.json", sealed(result))
    (run / "evaluation").mkdir()
    write_evaluation(run / "evaluation", evaluation_of("sandbox"))

    assert az("export", run, "--out", tmp_path / "out").returncode == 0
    card = (tmp_path / "out" / "README.md").read_text()
    assert "> **Warning.** likelihood displacement: chosen responses lost 9.00 nats" in card
    assert "| xstest | over-refusal | refusal | 0.100 \\[0.043, 0.214\\] | 50 | 1 | 3 |" in card


def test_figures_of_alignzoo_eval(tmp_path: Path) -> None:
    other = tmp_path / "runs" / "sft"
    (other / "model").mkdir(parents=True)
    evaluation = evaluation_of(str(other / "model"))
    section = evaluation_section(evaluation)
    assert "this model against sft, on the same prompts" in section
    assert str(tmp_path) not in section
    assert "/home/me" not in section
    assert r"| xstest | refusal | 0.100 | 0.040 | +0.060 \[-0.010, +0.130\] | 50 | 0.25 |" in section
    assert "| xstest | refusal | wildguard | 0.960 |" in section
    assert r"| arc\_easy | acc | 0.512 | 0.010 | 0 | 100 |" in section
    assert "- judge wildguard: limits of wildguard" in section
    assert "xstest 50 of 250" in section
    assert not_measured(evaluation, judged=False) == [
        "Not measured: attack success.",
        "Rates depend on the judge (refusal, wildguard); another judge gives other rates.",
    ]


def test_a_model_that_is_no_run_has_a_short_card(az: Az, make_model: MakeModel, tmp_path: Path) -> None:
    az("export", make_model("Qwen2"), "--out", tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    assert metadata_load(tmp_path / "out" / "README.md")["tags"] == ["alignzoo"]
    assert "exported from `Qwen2`" in card
    assert not any(heading in card for heading in ("## Method", "## Results", "## Citation"))
    assert str(tmp_path) not in card


def test_only_names_of_the_hub_are_linked(tmp_path: Path) -> None:
    assert hub_id("meta-llama/Llama-3.2-1B") == "meta-llama/Llama-3.2-1B"
    assert hub_id("gpt2") == "gpt2"
    for name in ("sandbox", str(tmp_path), "a/b/c", "./model", "model.gguf", "", None):
        assert hub_id(name) is None
