"""Supervised fine-tuning on its own data formats: the runs are those on the same rows labelled desirable."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from run_helpers import MakeModel, RunFolder, Train, plain_rows, same, write_rows
from transformers import AutoModelForCausalLM, AutoTokenizer

from alignzoo.data.prepare import prepare
from alignzoo.errors import IncompatibleError

ROWS = 24


def text() -> list[dict[str, Any]]:
    return [{"prompt": row["prompt"], "completion": row["chosen"]} for row in plain_rows(ROWS)]


def chat() -> list[dict[str, Any]]:
    return [
        {
            "prompt": [{"role": "user", "content": row["prompt"]}],
            "completion": [{"role": "assistant", "content": row["completion"].strip()}],
        }
        for row in text()
    ]


def whole() -> list[dict[str, Any]]:
    return [{"messages": [*row["prompt"], *row["completion"]]} for row in chat()]


@pytest.fixture
def fine_tune(train: Train, make_model: MakeModel, tmp_path: Path) -> Any:
    """A run of ``--loss sft`` on rows; nothing is set aside for a probe, which demonstrations cannot train."""

    def run(rows: list[dict[str, Any]], name: str, **more: Any) -> RunFolder:
        data = write_rows(tmp_path / f"{name}.jsonl", rows)
        model = str(make_model(chat_template=False, name="plain") if "text" in name else make_model())
        return train(**{"loss": "sft", "model": model, "data": str(data), "probe.share": None, **more})

    return run


FORMATS = {"text": (text, text), "chat": (chat, chat), "messages": (whole, chat)}


@pytest.mark.parametrize("name", FORMATS)
def test_a_run_is_that_on_the_same_rows_labelled_desirable(fine_tune: Any, name: str) -> None:
    given: dict[str, Any] = {"eval_share": 0.25, "eval_every": 1}
    rows, unlabelled = (make() for make in FORMATS[name])
    run = fine_tune(rows, name, **given)
    labelled = [{**row, "label": True} for row in unlabelled]
    unpaired = fine_tune(labelled, f"{name}-unpaired", **given, **{"probe.share": 0.0})
    assert run.timeless() == unpaired.timeless()
    assert same(run.weights, unpaired.weights)
    first, last = run.metrics[0], run.metrics[-1]
    assert last["eval/loss"] < first["eval/loss"]
    assert run.result["pairs"] | {"flipped": 0} == unpaired.result["pairs"] | {"flipped": 0}
    summary = json.loads((run.path / "data.json").read_text())["train"]
    assert (summary["shape"], summary["kept"], summary["dropped"]) == ("demonstrations", ROWS, {})


def test_losses_that_compare_responses_are_refused_before_any_weight_loads(
    fine_tune: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from alignzoo.session import inputs

    monkeypatch.setattr(inputs, "policy_of", None)
    for loss in ("dpo", "kto"):
        with pytest.raises(IncompatibleError, match=f"--loss {loss} cannot train on demonstrations"):
            fine_tune(text(), "text", loss=loss)
    with pytest.raises(IncompatibleError, match="cannot train on demonstrations"):
        fine_tune(text(), "text", loss=["sft", "dpo"])


@pytest.mark.parametrize("mean", ["responses", "tokens"])
def test_micro_batches_and_packing_change_nothing(fine_tune: Any, mean: str) -> None:
    losses = [
        [line["loss"] for line in fine_tune(chat(), "chat", **{"loss.mean": mean, "eval_share": 0.0, **cut}).metrics]
        for cut in ({"micro_batch_size": 8}, {"micro_batch_size": 3}, {"packing": False})
    ]
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    assert losses[2] == pytest.approx(losses[0], rel=1e-5)


@pytest.mark.parametrize("name", ["text", "chat"])
def test_tokens_and_the_loss_of_the_first_step_are_trls(
    fine_tune: Any, make_model: MakeModel, name: str, tmp_path: Path
) -> None:
    trl = pytest.importorskip("trl")
    rows = {"text": text, "chat": chat}[name]()
    run = fine_tune(rows, name, **{"loss.mean": "tokens", "eval_share": 0.0, "batch_size": ROWS})
    folder = make_model(chat_template=False, name="plain") if name == "text" else make_model()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    trainer = trl.SFTTrainer(
        AutoModelForCausalLM.from_pretrained(folder),
        args=trl.SFTConfig(output_dir=str(tmp_path / "trl"), use_cpu=True, report_to=[], bf16=False),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
    )
    made = prepare(Dataset.from_list(rows), tokenizer, max_length=512, max_prompt_length=256).dataset
    for theirs, ours in zip(trainer.train_dataset, made, strict=True):
        prompt, [response] = ours["prompt_ids"], ours["response_ids"]
        assert theirs["input_ids"] == [*prompt, *response]
        assert theirs["labels"] == [*[-100] * len(prompt), *response]
    batch = trainer.data_collator(list(trainer.train_dataset))
    with torch.no_grad():
        expected = trainer.compute_loss(trainer.model.eval(), batch)
    assert run.metrics[0]["loss"] == pytest.approx(float(expected), rel=1e-5)
