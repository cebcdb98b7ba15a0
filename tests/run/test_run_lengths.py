"""Lengths that the model has positions for, and data that is little for what the settings make of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import transformers
from heard import Heard
from run_helpers import Az, MakeModel, Train, plain_rows, write_rows

from alignzoo.errors import UsageError
from alignzoo.model.positions import has_position_table, warn_beyond_positions, within_positions
from alignzoo.plan.settings import Settings

SIZE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 64}
GPT2 = transformers.GPT2Config(n_embd=32, n_layer=2, n_head=4, n_positions=64)
LLAMA = transformers.LlamaConfig(intermediate_size=64, **SIZE)


@pytest.mark.parametrize(
    ("config", "table"),
    [
        (GPT2, True),
        (transformers.OPTConfig(word_embed_proj_dim=32, ffn_dim=64, **SIZE), True),
        (transformers.GPTJConfig(n_embd=32, n_layer=2, n_head=4, n_positions=64, rotary_dim=8), True),
        (LLAMA, False),
        (transformers.FalconConfig(alibi=True, **SIZE), False),
        (transformers.BloomConfig(hidden_size=32, n_layer=2, n_head=4), False),
    ],
    ids=lambda value: getattr(value, "model_type", None),
)
def test_positions_that_are_looked_up_in_a_table_are_told_from_computed_ones(config: Any, table: bool) -> None:
    assert has_position_table(config) == table


def test_a_default_length_yields_to_the_positions_of_the_model_and_a_given_one_is_refused() -> None:
    heard = Heard()
    found = within_positions(Settings(lr=0.5), GPT2, heard)
    assert (found.max_length, found.max_prompt_length, found.lr) == (64, 32, 0.5)
    assert heard.notes == ["--max-length is lowered to 64: sandbox has no more positions"]
    assert within_positions(Settings(max_prompt_length=60), GPT2, Heard()).max_length == 64
    for given in ({"max_length": 64}, {"max_length": 40, "max_prompt_length": 39}):
        assert within_positions(Settings(**given), GPT2, heard) == Settings(**given)
    for given, flag, most in (
        ({"max_length": 65}, "length 65", 64),
        ({"max_prompt_length": 64}, "prompt-length 64", 63),
    ):
        with pytest.raises(UsageError, match=f"--max-{flag}: sandbox has 64 positions") as refused:
            within_positions(Settings(**given), GPT2, Heard())
        assert str(refused.value.hint).endswith(f" {most} or less")
    assert within_positions(Settings(max_length=4096), LLAMA, heard).max_length == 4096
    assert len(heard.said) == 1


@pytest.mark.parametrize(("config", "longest", "warned"), [(LLAMA, 65, True), (LLAMA, 64, False), (GPT2, 65, False)])
def test_pairs_beyond_the_positions_of_a_rope_model_are_warned_of(config: Any, longest: int, warned: bool) -> None:
    heard = Heard()
    warn_beyond_positions(config, longest, heard)
    assert [f"rows have up to {longest} tokens, but the model is designed for 64" in text for text in heard.said] == [
        True
    ] * warned
    scaled = transformers.LlamaConfig(rope_parameters={"rope_type": "linear", "factor": 4.0, "rope_theta": 1e4}, **SIZE)
    warn_beyond_positions(scaled, longest, heard)
    assert len(heard.said) == warned


def test_replies_end_where_gpt2_has_no_more_positions(train: Train, make_model: MakeModel, tmp_path: Path) -> None:
    rows = [{**row, "chosen": row["chosen"] * 40} for row in plain_rows(40)]
    heard, data = Heard(), str(write_rows(tmp_path / "long.jsonl", rows))
    run = train(report=heard, model=str(make_model("gpt2")), data=data, max_steps=1)
    assert run.plan["settings"]["max-length"] == {"value": 256, "from": "model"}
    assert run.plan["settings"]["max-prompt-length"] == {"value": 128, "from": "default"}
    assert any(text.startswith("--max-length is lowered to 256") for text in heard.notes)
    lengths = json.loads((run.path / "data.json").read_text())["train"]
    assert lengths["counted"]["response-truncated"] == lengths["kept"] == 40


def test_more_tokens_than_positions_are_refused_before_the_data_is_read(
    az: Az, command: Callable[..., list[str]], make_model: MakeModel, tmp_path: Path
) -> None:
    words = command(tmp_path / "out", model=make_model("gpt2"), data=tmp_path / "none.jsonl", max_length=257)
    ended = az(*words)
    assert ended.returncode == 2
    assert "--max-length 257" in ended.stderr
    assert "give --max-length 256 or less" in ended.stderr
    assert not (tmp_path / "out").exists()


def test_little_data_is_warned_of(train: Train, tmp_path: Path) -> None:
    heard, data = Heard(), str(write_rows(tmp_path / "few.jsonl", plain_rows(12)))
    words = {"data": data, "batch_size": None, "max_steps": 1, "eval_share": 0.001, "probe.share": 0}
    run = train(report=heard, **words)
    assert run.result["pairs"] == {"train": 12, "held_out": 0, "probe": 0}
    repeats = "a step of 32 pairs exceeds the 12 training pairs, so pairs repeat within a step; lower --batch-size"
    assert any(repeats in warning for warning in heard.warnings)
    assert any("nothing is held out" in warning for warning in heard.warnings)
    quiet = Heard()
    train(report=quiet, **{**words, "batch_size": 12, "eval_share": 0})
    assert not [text for text in quiet.warnings if "held out" in text or "repeat" in text]
