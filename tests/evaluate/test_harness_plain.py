"""A suite through plain lm_eval gives the responses and rates of ``alignzoo eval``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from alignzoo_sandbox import MODEL_PATH
from alignzoo_sandbox.generate import prompts
from in_process import call_main

from alignzoo.evaluate.suites.suite import find_suite

TOKENS = 40


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """The sandbox's requests as the publisher's file of XSTest."""
    labels = {"test": "unsafe", "benign": "safe"}
    rows = [(prompt.text, split, label) for split, label in labels.items() for prompt in prompts(split)[:6]]
    lines = [f'{i},"{text}",{split},{label},x,' for i, (text, split, label) in enumerate(rows)]
    (tmp_path / "xstest_prompts.csv").write_text("\n".join(["id,prompt,type,label,focus,note", *lines]))
    return tmp_path


@pytest.mark.parametrize("name", [pytest.param("xstest", marks=pytest.mark.slow), "xstest-unsafe"])
def test_responses_and_rates_are_the_same(
    name: str, data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from lm_eval.evaluator import simple_evaluate
    from lm_eval.tasks import TaskManager

    words = ["--suite", name, "--judge", "refusal", "--max-new-tokens", str(TOKENS), "--data-dir", str(data)]
    done = call_main(["eval", "sandbox", *words, "--out", str(tmp_path / "out"), "--json"], capfd)
    assert done.returncode == 0, done.stderr
    [figure] = json.loads(done.stdout)["figures"]
    lines = (tmp_path / "out" / "responses" / f"{name}.jsonl").read_text().splitlines()
    suite = find_suite(name)
    plain = simple_evaluate(
        "hf",
        model_args={"pretrained": str(MODEL_PATH), "device": "cpu"},
        tasks=[name],
        task_manager=TaskManager(
            include_path=str(suite.path.parent), include_defaults=False, metadata={"data_dir": str(data)}
        ),
        gen_kwargs={"max_gen_toks": TOKENS},
        apply_chat_template=True,
        bootstrap_iters=0,
        batch_size=1,
    )
    samples = plain["samples"][name]
    assert [json.loads(line)["response"] for line in lines] == [sample["resps"][0][0] for sample in samples]
    assert len({sample["resps"][0][0] for sample in samples}) > 1
    assert figure["rate"]["value"] == plain["results"][name][f"{suite.measures},none"]
