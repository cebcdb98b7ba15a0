"""``alignzoo plan``: shapes in, a verdict out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cli_helpers import Az

LLAMA = {
    "model_type": "llama",
    "vocab_size": 1000,
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "tie_word_embeddings": False,
}
MAPS = 4 * (2 * 128 * 128 + 2 * 128 * 64 + 3 * 128 * 256)
TOTAL = MAPS + 4 * 2 * 128 + 128 + 2 * 1000 * 128


@pytest.fixture
def model(tmp_path: Path) -> str:
    """A folder with a config and nothing else."""
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    return str(tmp_path)


def _facts(az: Az, *words: str) -> dict[str, Any]:
    ended = az("plan", *words, "--json")
    assert ended.returncode == 0, ended.stderr
    facts: dict[str, Any] = json.loads(ended.stdout)
    return facts


def test_a_config_without_weights_is_enough(az_here: Az, model: str) -> None:
    facts = _facts(az_here, "--model", model, "--prompt-tokens", "50", "--response-tokens", "20")
    assert facts["parameters"]["total"] == facts["parameters"]["trained"] == TOTAL
    assert facts["parameters"]["embedding"] == facts["parameters"]["head"] == 128_000
    assert facts["memory"]["parts"]["weights"] == 4 * TOTAL
    assert facts["memory"]["peak"] == pytest.approx(sum(facts["memory"]["parts"].values()))
    assert facts["data"] | {"rows": None} == {
        "source": "given",
        "prompt": 50,
        "responses": [20, 20],
        "longest": 70,
        "rows": None,
        "percentiles": {},
    }
    assert facts["fits"] is True
    assert facts["time"]["step"] is None
    assert [path.name for path in Path(model).iterdir()] == ["config.json"]


def test_words_of_a_run_change_the_plan(az_here: Az, model: str) -> None:
    words = ["--model", f"{model}/config.json", "--gpus", "2", "--gpu-memory", "80"]
    plain = _facts(az_here, *words, "--gpu-flops", "100", "--steps", "10")
    assert plain["devices"]["sharding"] == "ddp"
    assert plain["time"]["run"] == pytest.approx(10 * plain["work"]["total"] / (100e12 * plain["time"]["utilisation"]))
    changed = ["--lora.r", "4", "--robust", "drdpo", "--geometry", "sam", "--micro-batch-size", "2", "--no-packing"]
    other = _facts(az_here, *words, *changed, "--activation-checkpointing", "--precision", "bf16")
    assert other["sentence"] == "--loss dpo --robust drdpo --geometry sam"
    assert other["parameters"]["trained"] < 0.1 * TOTAL
    assert (other["step"]["packed"], other["step"]["passes"], other["step"]["micro_batches"]) == (False, 2, 8)
    assert other["work"]["forwards"] > 0
    assert other["memory"]["moments"]["backward"]["parts"]["geometry"] > 0
    assert (other["step"]["forwards"], plain["step"]["forwards"]) == (2, 0)
    assert "one pass and 1 forward pass\n" in az_here("plan", *words, "--geometry", "random").stdout


def test_nodes_of_a_known_card(az_here: Az, model: str) -> None:
    words = ["--model", model, "--gpus", "2", "--nodes", "4", "--sharding", "fsdp2", "--precision", "bf16"]
    facts = _facts(az_here, *words, "--gpu", "h100", "--link-bandwidth", "100")
    assert facts["devices"] | {"memory": 0} == {
        "count": 8,
        "nodes": 4,
        "kind": "gpu",
        "memory": 0,
        "sharding": "fsdp2",
    }
    assert (facts["time"]["rate"], facts["time"]["link"], facts["time"]["network"]) == (989e12, 100e9, 50e9)
    assert facts["time"]["step"] == pytest.approx(facts["time"]["work"] + facts["time"]["traffic"])
    assert facts["fits"] is True
    text = az_here("plan", *words, "--gpu", "h100").stdout
    assert "each of 8 GPUs on 4 nodes (fsdp2)" in text
    assert "host memory of each node" in text
    assert all(len(line) <= 100 for line in text.splitlines() if model not in line)


def test_what_does_not_fit_is_told_what_to_change(az_here: Az, model: str) -> None:
    words = ["--model", model, "--gpu-memory", "0.65", "--batch-size", "24", "--micro-batch-size", "12"]
    words += ["--prompt-tokens", "200", "--response-tokens", "100"]
    facts = _facts(az_here, *words)
    assert facts["fits"] is False
    peaks = [change["peak"] for change in facts["changes"]]
    assert peaks == sorted(peaks)
    assert max(peaks) < facts["memory"]["peak"]
    change = next(change for change in facts["changes"] if change["words"] == "--activation-checkpointing")
    again = _facts(az_here, *words, change["words"])
    assert again["memory"]["peak"] == pytest.approx(change["peak"])
    assert again["fits"] == change["fits"]
    text = az_here("plan", *words).stdout
    assert "does not fit:" in text
    assert "largest part: activations" in text
    assert all(len(line) <= 100 for line in text.splitlines() if model not in line)


def test_the_words_that_fit_do_fit(az_here: Az, model: str) -> None:
    words = ["--model", model, "--gpu-memory", "0.65", "--batch-size", "24"]
    largest = _facts(az_here, *words, "--micro-batch-size", "12")["largest_micro_batch_tokens"]
    assert _facts(az_here, *words, "--tokens-per-micro-batch", str(largest))["fits"] is True


def test_lengths_come_from_the_data(az_here: Az) -> None:
    facts = _facts(az_here)
    assert facts["model"] == "sandbox"
    assert facts["data"]["source"] == "sandbox"
    assert facts["data"]["rows"] == 1808, "those that a run trains on, of 2000"
    marks = facts["data"]["percentiles"]
    assert marks["50"] <= marks["90"] <= marks["99"]
    assert facts["data"]["longest"] >= facts["data"]["prompt"] + max(facts["data"]["responses"])


def test_a_rate_is_measured_on_request(az_here: Az, model: str) -> None:
    facts = _facts(az_here, "--model", model, "--measure", "--max-steps", "3")
    assert facts["time"]["rate"] > 1e8
    assert facts["time"]["run"] == pytest.approx(3 * facts["time"]["step"])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--gpus", "0"], "0 is not in the range"),
        (["--gpu-memory", "-1"], "-1"),
        (["--prompt-tokens", "-5"], "-5"),
        (["--batch-size", "-4"], "--batch-size"),
        (["--longest", "10"], "less than the mean"),
        (["--gpus", "3"], "cannot be divided over 3 GPUs"),
        (["--gpus", "2", "--sharding", "none"], "cannot be combined with 2 GPUs"),
        (["--nodes", "2"], "--nodes needs the number of GPUs"),
        (["--gpu", "h100", "--link-bandwidth", "100"], "no effect on one GPU"),
        (["--gpus", "2", "--network-bandwidth", "100"], "no effect on one node"),
        (["--link-bandwidth", "100"], "no effect without --gpus"),
        (["--sharding", "fsdp"], "has no effect on one device"),
        (["--gpu-flops", "10"], "has no effect without --gpus"),
        (["--gpus", "1", "--measure"], "measures this CPU"),
        (["--optimizer", "adamx"], "no such optimizer"),
        (["--quantize", "4bit"], "needs a LoRA adapter"),
        (["--model", "./nowhere/at/all"], "no such folder"),
        (["--loss.gamma", "1"], "--loss.gamma"),
    ],
)
def test_wrong_words_are_usage_errors(az_here: Az, model: str, words: list[str], said: str) -> None:
    named = [] if "--model" in words else ["--model", model]
    ended = az_here("plan", *named, *words)
    assert ended.returncode == 2
    assert said in ended.stderr


def test_a_model_that_is_no_language_model_is_refused(az_here: Az, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text('{"model_type": "vit"}')
    ended = az_here("plan", "--model", str(path))
    assert ended.returncode == 2
    assert "not a causal language model" in ended.stderr


def test_combinations_that_a_run_refuses_are_refused(az_here: Az, model: str) -> None:
    assert az_here("plan", "--model", model, "--geometry", "sam", "--geometry", "gsam").returncode == 3
    sharded = ["--optimizer", "adafactor", "--gpus", "2", "--sharding", "fsdp"]
    ended = az_here("plan", "--model", model, *sharded)
    assert ended.returncode == 3
    assert "sharded weights" in ended.stderr
