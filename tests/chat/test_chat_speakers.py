"""An adapter and its base are two speakers with one set of weights."""

from __future__ import annotations

from itertools import zip_longest
from pathlib import Path

import torch
from alignzoo_chat.speakers import load_speakers
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from alignzoo.distributed.process import alone
from alignzoo.generate.decoding import Decoding
from alignzoo.generate.prompts import Prompting
from alignzoo.model.source import find_model
from alignzoo.report import Reporter
from alignzoo.session.subject import subject_of


def test_an_adapter_and_its_base_share_weights_and_take_turns(tmp_path: Path) -> None:
    base = find_model("sandbox").path
    config = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM", init_lora_weights=False)
    torch.manual_seed(0)
    get_peft_model(AutoModelForCausalLM.from_pretrained(base), config).save_pretrained(tmp_path / "lora")
    load = lambda name, other: load_speakers(  # noqa: E731
        subject_of(name), None if other is None else subject_of(other), alone("test"), Reporter(), {}
    )
    before, after = load(str(tmp_path / "lora"), base)
    assert before.model is after.model
    assert (before.adapter_off, after.adapter_off) == (True, False)
    ids = Prompting(after.tokenizer).ids([{"role": "user", "content": "How do I bake bread?"}])
    decoding = Decoding(max_new_tokens=16)
    in_turn = list(zip_longest(before.pieces(ids, decoding), after.pieces(ids, decoding), fillvalue=""))
    texts = ["".join(pieces) for pieces in zip(*in_turn, strict=True)]
    alone_, adapted = (load(name, None)[0] for name in (base, str(tmp_path / "lora")))
    assert texts == ["".join(one.pieces(ids, decoding)) for one in (alone_, adapted)]
    assert texts[0] != texts[1]
