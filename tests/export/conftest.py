"""A run of two steps with a LoRA adapter on the sandbox's model, and tiny models of other architectures."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from alignzoo_sandbox import MODEL_PATH, preference_rows
from export_helpers import Az, MakeModel
from in_process import call_main

import alignzoo

SIZES = {
    "vocab_size": 800,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}


@pytest.fixture
def az(capfd: pytest.CaptureFixture[str]) -> Az:
    """``alignzoo WORDS`` by the real ``main``."""

    def run(*words: object) -> subprocess.CompletedProcess[str]:
        return call_main([str(word) for word in words], capfd)

    return run


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run: DPO under cDPO, with an adapter of rank 4 on the sandbox's model."""
    folder = tmp_path_factory.mktemp("run")
    rows = [row for row in preference_rows("train", 200) if not row["rejected_safe"]][:40]
    data = folder / "my|pairs<b>.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"prompt": "no answers"}\n')
    words: dict[str, Any] = {
        "model": "sandbox",
        "data": str(data),
        "loss": "dpo",
        "robust": "cdpo",
        "robust.epsilon": 0.05,
        "lora.r": 4,
        "max-steps": 2,
        "batch-size": 8,
        "lr": 1e-2,
        "warmup-steps": 0,
        "eval-share": 0.2,
    }
    return Path(alignzoo.run({**words, "out": str(folder / "safer")}).folder)


@pytest.fixture(scope="session")
def exported(run_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """That run, exported with everything."""
    from alignzoo_export.export import Choices, export

    from alignzoo.report import Reporter
    from alignzoo.session.subject import subject_of

    out = tmp_path_factory.mktemp("exported") / "out"
    export(subject_of(str(run_folder)), out, Choices(gguf="f32", ollama=True), Reporter())
    return out


@pytest.fixture
def make_model(tmp_path: Path) -> MakeModel:
    """Saves a tiny random model of a class of transformers with the sandbox's tokenizer; returns its folder."""
    import transformers
    from transformers import AutoTokenizer

    def make(name: str, **values: Any) -> Path:
        torch.manual_seed(0)
        config = getattr(transformers, f"{name}Config")(**{**SIZES, **values})
        model = getattr(transformers, f"{name}ForCausalLM")(config)
        folder = tmp_path / name
        model.save_pretrained(folder)
        AutoTokenizer.from_pretrained(MODEL_PATH).save_pretrained(folder)
        return folder

    return make
