"""What a run folder holds, a reporter that remembers, and the pairs that the runs here train on."""

from __future__ import annotations

import json
import math
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import load_file

LN2 = math.log(2)
STEP_KEYS = {
    "step",
    "loss",
    "grad_norm",
    "lr",
    "step_seconds",
    "tokens",
    "rewards/chosen",
    "rewards/rejected",
    "rewards/margins",
    "rewards/accuracies",
    "logps/chosen",
    "logps/rejected",
}
EVAL_KEYS = {f"eval/{name}" for name in STEP_KEYS if "/" in name} | {"eval/loss"}


@dataclass(frozen=True)
class RunFolder:
    """A run folder as a user reads it."""

    path: Path

    @property
    def metrics(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.path / "metrics.jsonl").read_text().splitlines()]

    @property
    def result(self) -> dict[str, Any]:
        result = strict_json((self.path / "result.json").read_text())
        del result["digest"]
        return result

    @property
    def plan(self) -> dict[str, Any]:
        plan: dict[str, Any] = yaml.safe_load((self.path / "plan.yaml").read_text())
        return plan

    @property
    def weights(self) -> dict[str, torch.Tensor]:
        [file] = (self.path / "model").glob("*.safetensors")
        return load_file(file)

    def column(self, name: str) -> list[float]:
        return [line[name] for line in self.metrics]

    def timeless(self) -> list[dict[str, Any]]:
        """The metrics without what the clock says."""
        return [{key: value for key, value in line.items() if key != "step_seconds"} for line in self.metrics]


Train = Callable[..., RunFolder]
Az = Callable[..., "subprocess.CompletedProcess[str]"]
Start = Callable[..., "subprocess.Popen[str]"]
OnTwoRanks = Callable[..., "subprocess.CompletedProcess[str]"]
MakeModel = Callable[..., Path]


def strict_json(text: str) -> Any:
    """JSON as every reader takes it: without Python's NaN and Infinity."""

    def refuse(name: str) -> None:
        raise ValueError(f"{name} is not JSON")

    return json.loads(text, parse_constant=refuse)


def same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    """Whether two sets of weights are the same, bit for bit."""
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def write_rows(path: Path, rows: Sequence[dict[str, Any] | str]) -> Path:
    """Rows (or raw lines) as a .jsonl file."""
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def plain_rows(count: int) -> list[dict[str, Any]]:
    """Pairs of text, every prompt another one."""
    things = ("a kettle", "the old boat", "two lamps", "a red door")
    return [
        {
            "prompt": f"How do I mend {things[n % 4]} number {n}?",
            "chosen": f" First look at {things[n % 4]}, then ask {n} friends.",
            "rejected": f" No, {n} times no." if n % 2 else f" Throw {things[n % 4]} away and buy {n} more of them.",
        }
        for n in range(count)
    ]


def tiny_model(family: str, vocabulary: int, pad: int, end: int) -> Any:
    """A random model of two layers of 32 (seeded), spread enough for its log-probs to differ."""
    import transformers

    torch.manual_seed(0)
    common = {"vocab_size": vocabulary, "bos_token_id": end, "eos_token_id": end, "pad_token_id": pad}
    size = {
        "hidden_size": 32,
        "intermediate_size": 80,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 256,
        "initializer_range": 0.2,
    }
    gated = {**size, "num_key_value_heads": 2}
    if family == "gpt2":
        config: Any = transformers.GPT2Config(
            n_embd=32, n_layer=2, n_head=4, n_positions=256, initializer_range=0.2, **common
        )
        assert config.resid_pdrop == config.attn_pdrop == 0.1  # the family's own, which the reference must not have
    elif family == "gpt-neox":
        config = transformers.GPTNeoXConfig(**size, **common)
    elif family == "qwen3":
        config = transformers.Qwen3Config(head_dim=8, **gated, **common)
    elif family == "gemma":
        config = transformers.GemmaConfig(head_dim=8, **gated, **common)
    else:
        kinds = {
            "llama": transformers.LlamaConfig,
            "qwen2": transformers.Qwen2Config,
            "mistral": transformers.MistralConfig,
        }
        config = kinds[family](**gated, **common)
    return transformers.AutoModelForCausalLM.from_config(config)
