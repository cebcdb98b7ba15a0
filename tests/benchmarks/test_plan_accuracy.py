"""The benchmark of the memory estimate: its prediction, which the GPU check shares."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import transformers
from alignzoo_sandbox import MODEL_PATH

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def accuracy(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(BENCHMARKS)
    return __import__("plan_accuracy")


@pytest.mark.parametrize("gpu", [None, 8.0 * 2**30], ids=["cpu", "gpu"])
def test_the_prediction_holds_weights_gradients_and_optimizer_states(
    gpu: float | None, accuracy: Any, tmp_path: Path
) -> None:
    data = accuracy.write_data(tmp_path / "pairs.jsonl")
    full = accuracy.recipe_of(MODEL_PATH, data, {}, tmp_path / "run")
    config = transformers.AutoConfig.from_pretrained(MODEL_PATH)
    parameters = transformers.AutoModelForCausalLM.from_config(config).num_parameters()
    predicted = accuracy.predict(full, gpu=gpu)
    assert predicted > 4 * 4 * parameters  # fp32: weights, gradients and the two moments of AdamW
    # With an allocator that holds nothing: what it holds of an adapter's run is more than a tiny model's gradients.
    predicted = accuracy.predict(full, gpu=gpu, give_back=gpu is None)
    adapter = accuracy.predict({**full, "lora": {"r": 2}}, gpu=gpu, give_back=gpu is None)
    assert 4 * parameters < adapter < predicted
