"""Shapes on the meta device against real tiny models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import transformers
from alignzoo_estimate.shapes import Shapes, empty_model, read_config, shapes_of

from alignzoo.errors import ModelError
from alignzoo.testing.tiny import CONFIGS, tiny_model

EXPERTS = {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
EXPERTS |= {"num_key_value_heads": 2}


def _shapes(config: Any) -> Shapes:
    return shapes_of(empty_model(config))


@pytest.mark.parametrize("family", CONFIGS)
@pytest.mark.parametrize("tied", [True, False])
def test_counts_are_those_of_the_real_model(family: str, tied: bool) -> None:
    config = CONFIGS[family]()
    config.tie_word_embeddings = tied
    real = transformers.AutoModelForCausalLM.from_config(config)
    shapes = _shapes(config)
    assert shapes.total == real.num_parameters()
    assert shapes.total == shapes.embedding + shapes.head + shapes.layers + shapes.experts + shapes.other
    assert shapes.tied == tied
    assert (shapes.head == 0) == (tied and real.get_output_embeddings().bias is None)
    assert shapes.active == shapes.total
    assert (shapes.vocabulary, shapes.hidden, shapes.depth) == (64, 32, 2)


@pytest.mark.parametrize("family", ["llama", "phi3", "gpt2", "gpt-neox", "gemma3"])
def test_an_adapter_has_as_many_weights_as_pefts(family: str) -> None:
    from peft import LoraConfig, get_peft_model

    adapted = get_peft_model(tiny_model(family), LoraConfig(r=3, target_modules="all-linear", task_type="CAUSAL_LM"))
    trained = sum(weight.numel() for weight in adapted.parameters() if weight.requires_grad)
    assert _shapes(CONFIGS[family]()).adapter(3) == trained


def test_of_experts_a_token_meets_the_chosen_ones_only() -> None:
    config = transformers.MixtralConfig(
        **EXPERTS, intermediate_size=48, num_local_experts=8, num_experts_per_tok=2, tie_word_embeddings=False
    )
    shapes = _shapes(config)
    assert shapes.experts == 2 * 8 * 3 * 32 * 48
    assert shapes.active == shapes.total - shapes.experts * 6 // 8
    assert shapes.total == transformers.AutoModelForCausalLM.from_config(config).num_parameters()


def test_a_config_is_enough(tmp_path: Path) -> None:
    config = CONFIGS["llama"]()
    config.save_pretrained(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json"]
    for name in (tmp_path, tmp_path / "config.json"):
        assert _shapes(read_config(str(name))) == _shapes(config)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "cannot be read"),
        ("[]", "not a model config"),
        ('{"model_type": "no-such-family"}', "no-such-family"),
        ('{"model_type": "vit"}', "not a causal language model"),
        ('{"model_type": "t5"}', "not a causal language model"),
    ],
)
def test_what_is_no_causal_language_model_is_refused(tmp_path: Path, content: str, said: str) -> None:
    path = tmp_path / "config.json"
    path.write_text(content)
    with pytest.raises(ModelError, match=said):
        empty_model(read_config(str(path)))


def test_a_model_that_is_not_there() -> None:
    with pytest.raises(ModelError, match="no such folder"):
        read_config("./nowhere/at/all")
