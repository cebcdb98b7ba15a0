"""A log-prob of the reference is found again wherever it would come out the same, and only there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset, concatenate_datasets
from reference_helpers import SIDES, dataset_of, swapped

from alignzoo.logprobs.logps import padded_pair_logps
from alignzoo.model.base import REFERENCE_ADAPTER
from alignzoo.model.weights import fingerprint
from alignzoo.plan.settings import Settings
from alignzoo.reference.keys import batch_keys, dataset_keys, in_bytes, reference_identity, response_keys
from alignzoo.testing.tiny import batch_of, pair_rows, tiny_model, with_adapter

ROWS = pair_rows(20)


def identity(model: Any, way: str = "padded", **settings: Any) -> str:
    return reference_identity(model, Settings(**settings), fingerprint(model), way=way)


def one_element(model: Any) -> Any:
    with torch.no_grad():
        next(model.parameters()).view(-1)[7] += 1e-9
    return model


def other_config(model: Any) -> Any:
    model.config.rms_norm_eps = 1e-5
    return model


CHANGES: dict[str, Callable[[], str]] = {
    "weights": lambda: identity(one_element(tiny_model())),
    "weight dtype": lambda: identity(tiny_model(dtype=torch.float32)),
    "config": lambda: identity(other_config(tiny_model())),
    "family": lambda: identity(tiny_model("mistral")),
    "compute dtype": lambda: identity(tiny_model(), precision="bf16"),
    "quantized base": lambda: identity(tiny_model(), quantize="4bit", lora_r=4),
}
SAME: dict[str, dict[str, Any]] = {
    "learning rate": {"lr": 1e-3, "schedule": "constant", "warmup_steps": 0},
    "output folder": {"out": "elsewhere"},
    "seed": {"seed": 7},
    "label noise": {"label_noise": 0.3},
    "shares": {"eval_share": 0.5, "probe_share": 0.1},
    "batches": {"batch_size": 4, "micro_batch_size": 1, "tokens_per_micro_batch": 99, "packing": False},
    "lengths": {"max_length": 99, "max_prompt_length": 9},
    "policy's dropout": {"dropout": True},
    "words for the data": {"data": "a.jsonl", "data_format": "pairs", "eval_data": "b.jsonl"},
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_changes_the_reference_is_another_one(change: str) -> None:
    assert CHANGES[change]() != identity(tiny_model())


@pytest.mark.parametrize("name", SAME)
def test_other_settings_leave_it_the_same(name: str) -> None:
    assert identity(tiny_model(), **SAME[name]) == identity(tiny_model())


def test_how_attention_is_implemented_does_not_count() -> None:
    eager = tiny_model()
    eager.set_attn_implementation("eager")
    eager.config.use_cache = False
    assert identity(eager) == identity(tiny_model())


@pytest.mark.parametrize("settings", [{"precision": "bf16"}, {"quantize": "4bit", "lora_r": 4}])
def test_where_numbers_are_rounded_it_counts_how_they_are_computed(
    settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("alignzoo.logprobs.logps._TRIED", {})
    model, eager, logits = tiny_model(), tiny_model(), tiny_model()
    eager.set_attn_implementation("eager")
    batch = batch_of(ROWS[:2])
    expected = identity(model, **settings)
    assert identity(tiny_model(), **settings) == expected
    others = [identity(model, way=way, **settings) for way in ("pairs", "flex", "masks")]
    padded_pair_logps(logits, batch)  # which tries the fused head
    others += [identity(eager, **settings), identity(logits, **settings)]
    assert len({expected, *others}) == 6


def test_in_fp32_it_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model()
    assert len({identity(model, way=way) for way in ("padded", "pairs", "flex", "masks")}) == 1
    monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda: "high")  # products in TF32
    assert len({identity(model, way=way) for way in ("padded", "pairs")}) == 2


def test_a_new_adapter_shares_the_reference_of_its_base() -> None:
    assert identity(with_adapter(tiny_model(), seed=1), lora_r=2) == identity(tiny_model())
    assert identity(with_adapter(one_element(tiny_model()))) != identity(tiny_model())


def trained(folder: Path, *, by: float = 0.2) -> Any:
    from peft import PeftModel

    adapted = with_adapter(tiny_model())
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter += by
    adapted.save_pretrained(folder)
    model = PeftModel.from_pretrained(tiny_model(), folder, is_trainable=True)
    model.load_adapter(folder, adapter_name=REFERENCE_ADAPTER, is_trainable=False)
    model.set_adapter("default")
    return model


def test_a_trained_adapter_is_a_reference_of_its_own(tmp_path: Path) -> None:
    model = trained(tmp_path / "one")
    start = identity(model)
    assert start != identity(tiny_model())
    assert start != identity(trained(tmp_path / "two", by=0.3))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B.default" in name:
                parameter += 0.1
    assert identity(model) == start  # the copy that goes on training is not the reference


def keys_of(pairs: Dataset) -> np.ndarray:
    return dataset_keys(pairs, np.arange(len(pairs)))[0]


def test_batches_and_datasets_have_the_same_keys() -> None:
    pairs = concatenate_datasets([dataset_of(ROWS[:7]), dataset_of(ROWS[7:])])
    keys, lengths = dataset_keys(pairs, np.arange(20))
    assert keys.shape == (20, 2, 2)
    assert len(np.unique(keys.reshape(-1, 2), axis=0)) == 40
    np.testing.assert_array_equal(lengths, [[len(row[side]) for side in SIDES] for row in ROWS])
    some = [11, 3, 18]
    batch = batch_of([ROWS[i] for i in some])
    np.testing.assert_array_equal(batch_keys(batch), np.concatenate(keys[some].swapaxes(0, 1)))
    reordered = pairs.select([18, 0, 11, 3])
    for view, rows in ((pairs, some), (reordered, [2, 3, 0]), (pairs.select(range(3, 19)), [8, 0, 15])):
        found, sizes = dataset_keys(view, np.array(rows))
        np.testing.assert_array_equal(found, keys[some])
        np.testing.assert_array_equal(sizes, lengths[some])


def test_a_left_padded_batch_has_the_same_keys() -> None:
    batch = batch_of(ROWS[:3])
    turned = replace(batch, input_ids=batch.input_ids.clone(), attention_mask=batch.attention_mask.flip(1))
    for row, mask in enumerate(batch.attention_mask.bool()):
        turned.input_ids[row] = torch.cat([batch.input_ids[row, ~mask], batch.input_ids[row, mask]])
    np.testing.assert_array_equal(batch_keys(turned), batch_keys(batch))


def test_a_swapped_label_has_the_same_keys() -> None:
    np.testing.assert_array_equal(keys_of(dataset_of(swapped(ROWS))), keys_of(dataset_of(ROWS))[:, ::-1])


@pytest.mark.parametrize(
    ("prompt", "response"),
    [
        ([1, 2, 3], [4, 5, 7]),  # another token
        ([9, 2, 3], [4, 5, 6]),  # in the prompt
        ([1, 2], [3, 4, 5, 6]),  # the boundary, and with it the mask
        ([1, 2, 3], [4, 5]),  # cut shorter
        ([2, 3], [4, 5, 6]),
        ([1, 2, 3, 4, 5, 6], []),
    ],
)
def test_other_tokens_or_masks_have_other_keys(prompt: list[int], response: list[int]) -> None:
    def key(prompt: list[int], response: list[int]) -> bytes:
        return response_keys(in_bytes(np.array(prompt)), in_bytes(np.array(response)))

    assert key(prompt, response) != key([1, 2, 3], [4, 5, 6])
    assert key(prompt, response) == key(prompt, response)
    assert len(key(prompt, response)) == 16
