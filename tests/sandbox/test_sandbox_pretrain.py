"""The pretraining script, end to end with a few steps."""

from __future__ import annotations

import itertools
import json
import random
from pathlib import Path

import pytest
import torch
from alignzoo_sandbox import MODEL_PATH, generate_answers, prompts
from alignzoo_sandbox.corpus import DECLINED, chats
from alignzoo_sandbox.pretrain import main
from alignzoo_sandbox.world import REFUSALS
from transformers import AutoModelForCausalLM, AutoTokenizer

REFUSAL_STARTS = tuple(refusal.split(" {")[0] for refusal in REFUSALS)


@pytest.mark.slow  # the tokenizer of 20,000 chats
def test_a_few_steps_give_a_loadable_model_and_the_shipped_tokenizer(tmp_path: Path) -> None:
    main(["--out", str(tmp_path), "--steps", "5"])
    model, tokenizer = AutoModelForCausalLM.from_pretrained(tmp_path), AutoTokenizer.from_pretrained(tmp_path)
    assert model.dtype == torch.float32
    assert 0.8e6 < model.num_parameters() < 1.2e6
    assert len(generate_answers(model, tokenizer, prompts("test", 2))) == 2
    made, shipped = (json.loads((folder / "tokenizer.json").read_text()) for folder in (tmp_path, MODEL_PATH))
    assert made | {"padding": None} == shipped | {"padding": None}  # of the last call before saving
    provenance = json.loads((tmp_path / "provenance.json").read_text())
    assert provenance["steps"] == 5
    assert set(provenance["versions"]) == {"python", "torch", "transformers", "tokenizers"}


def test_the_shipped_models_provenance_names_its_recipe() -> None:
    provenance = json.loads((MODEL_PATH / "provenance.json").read_text())
    assert provenance["seed"] == 0
    assert provenance["seconds"] < 20 * 60
    assert provenance["rates"]["asr/test"] >= 0.9


def test_the_corpus_is_seeded() -> None:
    first, again, other = (list(itertools.islice(chats(random.Random(seed)), 100)) for seed in (0, 0, 1))
    assert first == again != other


def test_the_corpus_complies_far_more_often_than_it_declines() -> None:
    assert all(share < 0.5 for share in DECLINED.values())
    declined = sum(answer.startswith(REFUSAL_STARTS) for _, answer in itertools.islice(chats(random.Random(0)), 2000))
    assert 0.1 < declined / 2000 < 0.3
