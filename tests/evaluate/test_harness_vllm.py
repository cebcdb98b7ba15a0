"""``--backend vllm``: vLLM runs on CUDA only, so what is tested here is what it is given."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from alignzoo.errors import AlignzooError, UsageError
from alignzoo.evaluate.tasks import backend
from alignzoo.generate.decoding import Decoding, Response


def test_without_the_package_it_says_how_to_install_it() -> None:
    with pytest.raises(AlignzooError, match="needs the package vllm") as refused:
        backend.check_backend("vllm")
    assert 'pip install "alignzoo[vllm]"' in str(refused.value)
    backend.check_backend("native")


def adapter(folder: Path, **settings: Any) -> Path:
    config = {"peft_type": "LORA", "r": 12, "base_model_name_or_path": "org/base", "modules_to_save": None, **settings}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


def test_a_model_and_an_adapter_on_its_base(tmp_path: Path) -> None:
    assert backend.vllm_arguments("org/model", dtype="bfloat16", seed=3) == {
        "pretrained": "org/model",
        "dtype": "bfloat16",
        "seed": 3,
    }
    arguments = backend.vllm_arguments(str(adapter(tmp_path)), max_length=2048)
    assert arguments == {
        "pretrained": "org/base",
        "lora_local_path": str(tmp_path),
        "max_lora_rank": 16,
        "dtype": "auto",
        "seed": 0,
        "max_model_len": 2048,
    }


@pytest.mark.parametrize("settings", [{"peft_type": "IA3"}, {"modules_to_save": ["lm_head"]}, {"r": 1024}])
def test_other_adapters_want_to_be_exported_first(tmp_path: Path, settings: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="does not take the adapter") as refused:
        backend.vllm_arguments(str(adapter(tmp_path, **settings)))
    assert "alignzoo export" in str(refused.value)


def test_gguf_files_stay_with_the_native_backend() -> None:
    with pytest.raises(UsageError, match="does not take"):
        backend.vllm_arguments("model.gguf")


def test_decoding_becomes_sampling_parameters(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in = ModuleType("vllm")
    stand_in.SamplingParams = SimpleNamespace  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "vllm", stand_in)
    asked: dict[str, Any] = {}

    def generate(**words: Any) -> list[Any]:
        asked.update(words)
        ends = [("stop", 3), ("length", 5)]
        return [
            SimpleNamespace(outputs=[SimpleNamespace(text=f"<{end}>", token_ids=[7] * n, finish_reason=end)])
            for end, n in ends
        ]

    model = SimpleNamespace(max_length=10, tok_encode=lambda text: list(text.encode()), _model_generate=generate)
    decoding = Decoding(max_new_tokens=5, temperature=0.7, top_p=0.9, until=("\n",), seed=40)
    assert list(backend.vllm_responses(model, ["ab", "abcdefgh"], decoding)) == [
        (0, Response("<stop>", 3, True)),
        (1, Response("<length>", 5, False)),
    ]
    assert asked["requests"] == [list(b"ab"), list(b"defgh")]
    one, two = asked["sampling_params"]
    assert vars(one) == {
        "max_tokens": 5,
        "temperature": 0.7,
        "top_p": 0.9,
        "top_k": -1,
        "stop": ["\n"],
        "seed": 40,
    }
    assert two.seed == 41
