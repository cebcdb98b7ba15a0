"""The GPU check's arithmetic: operations of a step, goals held and missed, the same work on both sides, the page."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import transformers

from alignzoo.data.collate import collate
from alignzoo.logprobs.forward import use_packing
from alignzoo.logprobs.logps import packed_logps

ROOT = Path(__file__).parents[2]


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    monkeypatch.syspath_prepend(ROOT / "benchmarks" / "gpu")

    def load(name: str) -> ModuleType:
        return __import__(name)

    return load


def test_operations_of_a_step_are_what_torch_counts(module: Any) -> None:
    shapes, counting = module("shapes"), module("gemm_share")
    shape = shapes.SHAPES["tiny"] | {"tie_word_embeddings": False}
    pairs = shapes.random_pairs(3, 500, (5, 9), (2, 6))
    rows = [{"row_id": i, "prompt_ids": p, "response_ids": list(replies)} for i, (p, *replies) in enumerate(pairs)]
    batch = collate(rows, pad_id=0, shape="pairs")
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**shape, pad_token_id=0))
    use_packing(model)

    def step() -> None:
        packed_logps(model, batch).logps.sum().backward()

    step()  # the first one tries the head on its own logits
    attention = counting.attention(model.config, batch.pack) * 6 // 7  # without a second look at the scores
    assert shapes.operations(shape, pairs) == counting.products(step) + attention


def test_an_adapter_saves_the_gradients_of_frozen_weights_and_adds_its_own(module: Any) -> None:
    shapes = module("shapes")
    shape, pairs = shapes.SHAPES["8b"], shapes.random_pairs(2, 500, (50, 90), (20, 60))
    full, adapted = shapes.operations(shape, pairs), shapes.operations(shape, pairs, rank=16)
    assert 4 / 6 < adapted / full < 0.7


@pytest.mark.parametrize(
    ("card", "rate"),
    [
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA H200", 989e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA GeForce RTX 4090", None),
    ],
)
def test_the_peak_is_that_of_the_card(card: str, rate: float | None, module: Any) -> None:
    assert module("shapes").dense_peak(card) == rate


def side(speed: float, peak: float, chosen: float = -50.0, loss: float = 0.6931) -> dict[str, Any]:
    return {
        "tokens_per_second": speed, "peak": peak, "chosen": [chosen], "rejected": [-60.0], "losses": [loss],
        "share": 0.39, "flops": 3.9e14,
    }  # fmt: skip


def found(**trl: float) -> dict[str, Any]:
    return {
        "1b-alignzoo": {"dialogues": side(1300, 8), "rows": side(1, 1)},
        "1b-trl": {"dialogues": side(1000, 10, **trl)},
        "geometry": {"ratios": {"plain": 1.0, "shapo-token": 1.12, "sam": 2.3}},
        "plan": {"found": {"1b dialogues": {"tensors": 7.0}}},
    }


def test_each_figure_stands_beside_its_goal(module: Any) -> None:
    goals = module("goals")
    table = goals.goals_table(found(), judged=True)
    assert "| 1B, dialogues: unique tokens/s over TRL's | 1.30× | ≥ 1.30× | held |" in table
    assert "| 1B, dialogues: peak memory over TRL's | 0.80× | ≤ 0.90× | held |" in table
    assert "share of the dense bf16 peak | 39 % | ≥ 40 % | missed |" in table
    assert "| ShaPO at interval 5 over plain, time | 1.12× | ≤ 1.12× | held |" in table
    assert "| `sam` over plain, time | 2.30× | ≤ 2.10× | missed |" in table
    assert "| 1B, dialogues: peak, error of `alignzoo plan` | 12 % | ≤ 15 % | held |" in table
    assert "| 8B, long, checkpointing: unique tokens/s over TRL's | not measured | ≥ 2.00× |  |" in table
    assert "held" not in goals.goals_table(found(), judged=False)


def test_a_card_whose_peak_is_not_known_has_no_share_of_it(module: Any) -> None:
    measured = found()
    measured["1b-alignzoo"]["rows"]["share"] = None
    table = module("goals").goals_table(measured, judged=True)
    assert "share of the dense bf16 peak | not measured | ≥ 40 % |  |" in table


@pytest.mark.parametrize(
    ("trl", "same"), [({}, True), ({"chosen": -50.2}, True), ({"chosen": -51.0}, False), ({"loss": 0.75}, False)]
)
def test_sides_that_did_different_work_are_told_apart(trl: dict[str, float], same: bool, module: Any) -> None:
    assert (module("goals").different_work(found(**trl), cpu=False) == []) == same


def test_results_go_between_the_marks_of_the_page(module: Any, tmp_path: Path) -> None:
    goals = module("goals")
    parts = [{"part": name, "status": "ok", "seconds": 1.0, "figures": f, "about": ""} for name, f in found().items()]
    content = {
        "cpu": False, "card": "NVIDIA H100 80GB HBM3", "date": "2026-01-01", "python": "3.12", "commit": "abc",
        "versions": {"torch": "2.13.0"}, "parts": parts,
    }  # fmt: skip
    page = tmp_path / "page.md"
    page.write_text((ROOT / "docs" / "performance.md").read_text())
    goals.write(json.loads(json.dumps(content)), page)
    text = page.read_text()
    assert "2026-01-01; NVIDIA H100 80GB HBM3; Python 3.12, torch 2.13.0; commit abc." in text
    assert "1.30× | ≥ 1.30× | held" in text
    assert "## Generation" in text
    goals.write(content, page)
    assert page.read_text() == text, "what was there is replaced"
    with pytest.raises(SystemExit, match="tiny sizes on a CPU"):
        goals.write({**content, "cpu": True}, page)
