"""The estimates of `alignzoo plan` beside figures of the literature, as a Markdown table.

    python benchmarks/plan_literature.py

A published formula is evaluated for the same model and lengths, a published measurement is planned with the same
settings as far as they are known. Nothing is trained, and nothing but shapes is read.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import transformers
from alignzoo_estimate.cards import GIB
from alignzoo_estimate.estimate import Estimate, Hardware, Model, Situation, estimate
from alignzoo_estimate.lengths import Data
from alignzoo_estimate.micro_batch import Lengths

from alignzoo.plan.recipe import Layer
from alignzoo.plan.resolve import require, resolve

KAPLAN = "[Kaplan 2020](https://arxiv.org/abs/2001.08361), [Hoffmann 2022](https://arxiv.org/abs/2203.15556)"
MEGATRON = "[Narayanan 2021](https://arxiv.org/abs/2104.04473), eq. 3"
ZERO = "[Rajbhandari 2020](https://arxiv.org/abs/1910.02054)"
QLORA = "[Dettmers 2023](https://arxiv.org/abs/2305.14314)"
TORCHTUNE = "[torchtune](https://github.com/pytorch/torchtune/blob/0031bfb080bd35ec533c412df883cf2bf7bf7fe4/README.md)"
TORCHTITAN = "[torchtitan](https://github.com/pytorch/torchtitan/blob/041336434916bdc0f88c1f89fda176fd3c2092e4/docs/performance.md)"


@dataclass(frozen=True)
class Row:
    """A figure and ours.

    Attributes:
        tolerance: the largest relative difference accepted of what is counted by the same rule; None for measurements
            of other programs, which are only shown.
        reason: what differs.
    """

    what: str
    source: str
    published: float
    ours: float
    unit: str
    tolerance: float | None = None
    reason: str = ""

    @property
    def difference(self) -> float:
        """Relative to the published figure."""
        return self.ours / self.published - 1


def _llama(hidden: int, inner: int, depth: int, heads: int, keys: int, vocabulary: int) -> Any:
    return transformers.LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=inner,
        num_hidden_layers=depth,
        num_attention_heads=heads,
        num_key_value_heads=keys,
        max_position_embeddings=8192,
        tie_word_embeddings=False,
    )


CONFIGS = {
    "8B": lambda: _llama(4096, 14336, 32, 32, 8, 128256),
    "70B": lambda: _llama(8192, 28672, 80, 64, 8, 128256),
    "65B": lambda: _llama(8192, 22016, 80, 64, 64, 32000),
    "GPT": lambda: transformers.GPT2Config(n_embd=2048, n_layer=24, n_head=16, n_positions=2048, vocab_size=51200),
}
"""Llama 3 8B and 70B, LLaMA 65B, and a GPT of 1.3 billion parameters."""


@cache
def model(name: str) -> Model:
    """Shapes of a model of :data:`CONFIGS`."""
    return Model(CONFIGS[name]())


def planned(name: str, length: int, rows: int, hardware: Hardware | None = None, **settings: Any) -> Estimate:
    """A step of language modelling: per device so many rows, each one sequence of nothing but a response."""
    hardware = hardware or Hardware(1, True, None, None, "none")
    words = {name.replace("__", ".").replace("_", "-"): value for name, value in settings.items()}
    sizes = {"batch-size": rows * hardware.devices, "micro-batch-size": rows, "max-length": length + 1}
    values = {"model": "a", "data": "b", "loss": "simpo", **sizes, "max-prompt-length": 1, **words}
    row = Lengths(1, (length - 1,))
    plan = require(resolve([Layer("python", values)], distributed=hardware.sharding))
    return estimate(Situation(plan, model(name), hardware, Data(row, row, row, "given")))


def rows() -> Iterator[Row]:
    """All comparisons."""
    yield from work()
    yield from states()
    yield from measured()


def work() -> Iterator[Row]:
    """FLOPs of a step, or of a token."""
    found, shapes = planned("8B", 2048, 1), model("8B").shapes
    weights = shapes.total - shapes.embedding
    yield Row("8B, 6·N·D without attention", KAPLAN, 6e-12 * weights * 2048, _linear(found) / 1e12, "TFLOP", 0.01)
    found = planned("GPT", 2048, 1, activation_checkpointing=True)
    h, depth, s, v = 2048, 24, 2048, 51200
    formula = 96 * s * depth * h**2 * (1 + s / (6 * h) + v / (16 * depth * h))
    ours = _linear(found) + found.work.attention * 4 * 2 / 4.5
    all_scores = "scores by their rule: all of them, twice the forward's work in the backward"
    yield Row("GPT 1.3B with recomputation", MEGATRON, formula / 1e12, ours / 1e12, "TFLOP", 0.01, all_scores)
    for name, mfu, speed in (("8B", 0.582, 2973), ("70B", 0.517, 331)):
        found, embedding = planned(name, 8192, 1), model(name).shapes.embedding
        ours = (_linear(found) + found.work.attention * 3 * 2 / 3.5) / 8192 + 6 * embedding
        said = f"{all_scores}; embeddings as a product; theirs is MFU x 312 TFLOP/s / tokens/s"
        yield Row(f"{name} at 8,192 tokens", TORCHTITAN, mfu * 312e3 / speed, ours / 1e9, "GFLOP per token", 0.01, said)


def _linear(found: Estimate) -> float:
    return found.work.layers + found.work.head * 3 / (4 if found.situation.recomputes_head else 3)


def states() -> Iterator[Row]:
    """Weights, gradients and optimizer state, and what sharding them exchanges."""
    found, total = planned("8B", 512, 2, precision="bf16"), model("8B").shapes.total
    parts = next(one for one in found.moments if one.name == "optimizer step").parts
    kept = sum(parts[name] for name in ("weights", "gradients", "optimizer"))
    note = "the same sum in other parts: theirs 2 + 2 + 12, ours 4 + 4 + 8; autocast's bf16 copies come on top"
    yield Row("AdamW in mixed precision", ZERO, 16, kept / total, "bytes per parameter", 0.01, note)
    sharded = planned("8B", 512, 1, Hardware(64, True, None, None, "fsdp", 8), precision="bf16")
    parts = next(one for one in sharded.moments if one.name == "optimizer step").parts
    kept = sum(parts[name] for name in ("weights", "gradients", "optimizer"))
    yield Row("8B sharded 64 ways", ZERO, 16e-9 * total / 64, kept / 1e9, "GB", 0.01)
    root, layers = (sharded.situation.group_bytes(group) / 4 for group in ("root", "layers"))
    numbers = (sharded.traffic.exchanged / 4 - 2 * root) / layers
    why = "of the layers; embeddings and head are gathered once a step, not twice"
    yield Row("ZeRO-3's traffic in a step", ZERO, 3, numbers, "numbers per parameter", 0.01, why)


def measured() -> Iterator[Row]:
    """Peaks of other programs, of LoRA runs with frozen weights in bf16."""
    words: dict[str, Any] = {"precision": "bf16", "weights": "bf16", "activation_checkpointing": True, "lora__r": 8}
    sharded = Hardware(8, True, None, None, "fsdp")
    note = "2 × 2,048 tokens, compiled; adapters on fewer maps"
    for name, device, settings, peak in (
        ("8B", None, {}, 16.2),
        ("8B", None, {"quantize": "4bit"}, 7.4),
        ("70B", sharded, {}, 27.6),
    ):
        found = planned(name, 2048, 2, device, **{**words, **settings})
        what = f"{name} {'QLoRA' if settings else 'LoRA'}{', each of 8 GPUs' if device else ''}"
        yield Row(what, TORCHTUNE, peak, found.peak.total / GIB, "GiB", None, note)
    found = planned("65B", 512, 1, **{**words, "quantize": "4bit", "lora__r": 16})
    why = "theirs is what the card has, on which it fits"
    yield Row("65B QLoRA on one 48 GB GPU", QLORA, 48, found.peak.total / 1e9, "GB", None, why)


def main() -> None:
    print("| what | source | published | ours | difference | why |\n| --- | --- | --- | --- | --- | --- |")
    for row in rows():
        figures = f"{row.published:.4g} {row.unit} | {row.ours:.4g} | {row.difference:+.0%}"
        print(f"| {row.what} | {row.source} | {figures} | {row.reason} |", flush=True)


if __name__ == "__main__":
    main()
