"""Every combination of the first losses, wrappers and controllers trains, and leaves a folder to read and load."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from alignzoo_sandbox import EVALUATION_SPLITS
from heard import Heard
from run_helpers import EVAL_KEYS, LN2, STEP_KEYS, RunFolder, Start, Train
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from alignzoo.report import Reporter
from alignzoo.runs.execute import resume

GEOMETRY = {
    "geometry/gradient_cosine",
    "geometry/radius",
    "geometry/ascent_grad_norm",
    "geometry/predicted_rise",
    "geometry/sharpness_gap",
    "geometry/survival",
}


@pytest.mark.parametrize("geometry", ["plain", "shapo-token"])
@pytest.mark.parametrize("robust", [[], ["drdpo"]])
@pytest.mark.parametrize("loss", ["dpo", "ipo", "simpo"])
def test_all_combinations_train(loss: str, robust: list[str], geometry: str, train: Train) -> None:
    interval = {"geometry.interval": 2} if geometry == "shapo-token" else {}
    run = train(loss=loss, robust=robust, geometry=geometry, max_steps=4, eval_every=2, lr=3e-4, **interval)
    lines = run.metrics
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    for line in lines:
        perturbed = geometry == "shapo-token" and line["step"] % 2 == 0
        evaluated = line["step"] % 2 == 0
        expected = STEP_KEYS | {"total_tokens"} | (GEOMETRY if perturbed else set())
        expected |= (EVAL_KEYS if evaluated else set()) | ({"robust/effective_pairs"} if robust else set())
        assert line.keys() == expected
        assert 1 <= line.get("robust/effective_pairs", 1) <= 8
        assert all(math.isfinite(value) for value in line.values())
        assert line["grad_norm"] > 0
        assert line["rewards/margins"] == pytest.approx(line["rewards/chosen"] - line["rewards/rejected"], abs=1e-9)
    before, after = run.result["before"], run.result["after"]
    assert before.keys() == after.keys() == EVAL_KEYS
    assert after["eval/loss"] < before["eval/loss"]
    assert after["eval/rewards/margins"] > before["eval/rewards/margins"]
    assert {name: lines[-1][name] for name in EVAL_KEYS} == pytest.approx(after)
    if perturbed:
        assert lines[1]["geometry/radius"] == pytest.approx(0.05)
        assert lines[1]["geometry/survival"] > 0.99
    assert run.result["sentence"].endswith(f"--geometry {geometry}")
    assert (run.path / "probe" / "probe.json").is_file() == (run.path / "geometry").is_dir() == perturbed


@pytest.fixture
def default_run(start: Start, tmp_path: Path) -> tuple[RunFolder, str, str]:
    """The embedded default, as it is but for its length."""
    words = "run --geometry shapo-token --robust drdpo --max-steps 4 --geometry.interval 2 --loss.beta 0.2"
    process = start(*words.split(), "--out", "out")
    stdout, stderr = process.communicate(timeout=300)
    assert process.returncode == 0, stderr
    return RunFolder(tmp_path / "out"), stdout, stderr


@pytest.mark.slow
def test_the_embedded_default_from_start_to_end(default_run: tuple[RunFolder, str, str]) -> None:
    run, stdout, stderr = default_run
    assert stdout == "out\n"
    assert "Traceback" not in stderr
    assert "training 4/4 (100%)" in stderr
    for part in ("held-out pairs", "generated answers, share of prompts", "before", "after"):
        assert part in stderr
    names = {path.name for path in run.path.iterdir()}
    assert names == {
        "plan.yaml",
        "env.json",
        "data.json",
        "metrics.jsonl",
        "examples.jsonl",
        "evaluation.json",
        "result.json",
        "probe",
        "geometry",
        "checkpoints",
        "model",
    }
    _plan_names_origins(run.plan)
    result = run.result
    assert result["status"] == "finished"
    assert (result["steps"], result["tokens"]) == (4, sum(run.column("tokens")))
    evaluation = json.loads((run.path / "evaluation.json").read_text())
    del evaluation["digest"]
    assert evaluation == {
        "before": result["before"],
        "after": result["after"],
    }
    for split in EVALUATION_SPLITS:
        assert f"sandbox/broken/{split}" in result["before"]
    assert result["before"]["sandbox/asr/test"] >= 0.9
    assert result["before"]["sandbox/refusal/benign"] <= 0.05
    assert run.metrics[0]["loss"] == pytest.approx(LN2, abs=1e-6)
    assert json.loads((run.path / "env.json").read_text())["versions"]["torch"] == torch.__version__
    assert json.loads((run.path / "data.json").read_text())["train"]["kept"] > 1000
    _loads_and_answers(run.path / "model")


def _plan_names_origins(plan: dict[str, Any]) -> None:
    assert plan["sentence"] == "--loss dpo --robust drdpo --geometry shapo-token"
    assert plan["loss"]["options"]["beta"] == {"value": 0.2, "from": "flag"}
    assert plan["geometry"]["options"]["rho"]["from"] == "default"
    assert plan["geometry"]["from"] == "alignzoo"
    settings = plan["settings"]
    assert settings["max-steps"] == {"value": 4, "from": "flag"}
    assert settings["lr"]["from"] == "recipe:sandbox"
    assert settings["seed"] == {"value": 0, "from": "default"}


def _loads_and_answers(folder: Path) -> None:
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    chat = [{"role": "user", "content": "How do I sweep the tower?"}]
    prompt = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    answer = model.generate(**prompt, max_new_tokens=12, do_sample=False)[0, prompt["input_ids"].shape[1] :]
    assert tokenizer.decode(answer, skip_special_tokens=True).strip()


def test_a_named_composition_says_what_it_stands_for(train: Train) -> None:
    heard = Heard()
    run = train(loss="drdpo", report=heard, max_steps=1)
    assert run.result["sentence"] == "--loss dpo --robust drdpo --geometry plain"
    assert heard.notes[0] == "--loss drdpo is short for --loss dpo --robust drdpo"


def test_two_runs_of_one_process_do_not_disturb_each_other(train: Train) -> None:
    first = train(precision="fp32")
    train(precision="bf16")
    again = train(precision="fp32")
    assert first.timeless() == again.timeless()


def test_a_companion_is_evaluated_and_saved_and_survives_a_resume(train: Train, tmp_path: Path) -> None:
    words: dict[str, Any] = {"loss": "dpo", "max_steps": 4, "save_every": 2, "eval_every": 2}
    plain = train(**words)
    run = train(**words, geometry=["sam", "swa"], **{"geometry.swa.start": 1})
    assert run.plan["sentence"] == "--loss dpo --geometry sam --geometry swa"
    assert [("geometry/swa_distance" in line, "geometry/radius" in line) for line in run.metrics] == [
        (False, True), *[(True, True)] * 3
    ]  # fmt: skip
    last = torch.load(run.path / "checkpoints/step-00000004/optimizer_and_methods.pt", weights_only=True)
    average = last["geometry"]["companions"][0]["average"]
    saved = run.weights
    assert any(torch.equal(tensor, value) for tensor in saved.values() for value in average)
    trained = load_file(run.path / "checkpoints/step-00000004/weights.safetensors")
    assert not all(torch.equal(tensor, saved[name]) for name, tensor in trained.items() if name in saved)
    assert run.result["weights"] != plain.result["weights"]
    whole = run.result
    shutil.rmtree(run.path / "checkpoints" / "step-00000004")
    (run.path / "result.json").unlink()
    resume(run.path, reporter=Reporter())
    assert run.result["weights"] == whole["weights"]
    assert run.result["after"] == whole["after"]
