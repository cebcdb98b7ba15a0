"""What the benchmarks count and keep: operations of a packed step, results in a file, results in a page."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import transformers

from alignzoo.data.collate import TokenBatch, collate
from alignzoo.logprobs.forward import use_packing
from alignzoo.logprobs.logps import packed_logps

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SHAPE = {"vocab_size": 50, "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 3}
LENGTHS = [(7, 5, 3), (1, 4, 6), (4, 6), (3, 2, 5, 4)]
"""Tokens of a prompt and of its responses."""


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(BENCHMARKS)

    def load(name: str) -> ModuleType:
        return __import__(name)

    return load


def batch() -> TokenBatch:
    ids = [[list(range(3, 3 + size)) for size in lengths] for lengths in LENGTHS]
    rows = [{"row_id": i, "prompt_ids": prompt, "response_ids": replies} for i, (prompt, *replies) in enumerate(ids)]
    return collate(rows, pad_id=0, shape="ranked")


def test_counted_products_of_a_packed_step_are_those_of_its_shapes(module: Any) -> None:
    config = transformers.LlamaConfig(**SHAPE, num_attention_heads=4, num_key_value_heads=2)
    model = transformers.AutoModelForCausalLM.from_config(config)
    use_packing(model)

    def step() -> None:
        packed_logps(model, batch()).logps.sum().backward()

    width, keys = 24, 12
    of_a_layer = width * (width + 2 * keys + width) + 3 * width * 40  # q, k and v, o; gate, up and down
    tokens = sum(map(sum, LENGTHS))
    responses = sum(sum(replies) for _, *replies in LENGTHS)
    forward = 2 * (tokens * 3 * of_a_layer + responses * 50 * width)
    step()  # the first one tries the head on its own logits
    assert module("gemm_share").products(step) == 3 * forward


def test_attention_is_counted_where_the_mask_lets_through(module: Any) -> None:
    config = transformers.LlamaConfig(**SHAPE, num_attention_heads=4, num_key_value_heads=2)
    pack = batch().pack
    assert pack is not None
    seen = int(pack.dense_mask().sum())
    assert module("gemm_share").attention(config, pack) == 7 * 2 * seen * 24 * 3


def measured(seconds: list[float], peak: int) -> dict[str, Any]:
    return {"seconds": seconds, "peak": peak, "start": 3.0, "trainer": "it 1"}


def test_a_scenario_that_is_run_again_replaces_itself_and_a_page_keeps_what_is_around_its_marks(
    module: Any, tmp_path: Path
) -> None:
    report, file, page = module("report"), tmp_path / "results.json", tmp_path / "page.md"
    page.write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n")
    about = {"tokens": [10, 20], "pairs": 4, "given": "m", "threads": 2, "versions": {"torch": "2"}}
    for ours in (9.0, 1.0):
        rounds = {"alignzoo": [measured([ours, ours], 2**30)], "trl": [measured([2.0, 4.0], 2**32)]}
        report.keep(file, "scenarios", "hh-fly", {**rounds, **about})
    report.keep(file, "scenarios", "no-prompt", {**rounds, **about})
    assert set(json.loads(file.read_text())["scenarios"]) == {"hh-fly", "no-prompt"}
    shown = report.text(file, page)
    assert "| `hh-fly` | 1.00 (1.00–1.00) | 3.00 (2.00–4.00) | 3.00 (aim ≥ 2.6) | 15 | 5 |" in shown
    assert "| `hh-fly` | 1.00 | 4.00 | 0.25 (aim ≤ 0.45) |" in shown
    assert page.read_text() == f"before\n{report.BEGIN}\n\n{shown}\n\n{report.END}\nafter\n"


def test_different_work_is_refused(module: Any) -> None:
    against = module("against_trl")
    ours = {"losses": [0.6931, 0.68], "chosen": [-100.0], "rejected": [-90.0]}
    case = module("scenarios").SCENARIOS["hh-fly"]
    against.check_same("hh-fly", case, ours, ours)
    for changed in ({"losses": [0.6931, 0.69]}, {"chosen": [-100.1]}, {"rejected": [float("nan")]}):
        with pytest.raises(SystemExit, match="different work"):
            against.check_same("hh-fly", case, ours, {**ours, **changed})
