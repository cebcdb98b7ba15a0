"""A log-prob of the reference is found again wherever it would come out the same, and only there."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset, concatenate_datasets
from reference_helpers import RANKED, UNPAIRED, dataset_of, swapped

from alignzoo.data.collate import batches_of
from alignzoo.logprobs.logps import padded_logps
from alignzoo.model.base import REFERENCE_ADAPTER
from alignzoo.model.weights import fingerprint
from alignzoo.plan.settings import Settings
from alignzoo.reference.identity import reference_identity
from alignzoo.reference.keys import batch_keys, dataset_keys, in_bytes, response_keys
from alignzoo.testing.tiny import batch_of, pair_rows, random_rows, tiny_model, with_adapter

ROWS = pair_rows(20)


def identity(model: Any, way: str = "padded", **settings: Any) -> str:
    return reference_identity(model, Settings(**{"precision": "fp32", **settings}), fingerprint(model), way=way)


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
    monkeypatch.setattr("alignzoo.logprobs.heads._TRIED", {})
    model, eager, logits = tiny_model(), tiny_model(), tiny_model()
    eager.set_attn_implementation("eager")
    batch = batch_of(ROWS[:2])
    expected = identity(model, **settings)
    assert identity(tiny_model(), **settings) == expected
    others = [identity(model, way=way, **settings) for way in ("segments", "flex", "masks")]
    padded_logps(logits, batch)  # which tries the fused head
    others += [identity(eager, **settings), identity(logits, **settings)]
    assert len({expected, *others}) == 6


def test_in_fp32_it_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model()
    assert len({identity(model, way=way) for way in ("padded", "segments", "flex", "masks")}) == 1
    monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda: "high")  # products in TF32
    assert len({identity(model, way=way) for way in ("padded", "segments")}) == 2


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


RECORDED = [
    [-8406913129033346628, 3459450814674182172],
    [-7401085161073917823, 5660745045847202811],
    [6643851665268510443, -3611302367822203729],
    [6429461706733835703, -1144103899415058324],
    [7074648653722013614, 2005856446498810513],
    [5079849312008213089, 7837423541229539346],
    [7468890907456060207, -5475663531788176201],
    [-3496178425282105686, 7381077474317261907],
]
"""The keys of the first four of :data:`ROWS`, chosen and rejected, as every store so far has them (commit 59bbff5)."""


def keys_of(dataset: Dataset, partners: np.ndarray | None = None) -> np.ndarray:
    return dataset_keys(dataset, np.arange(len(dataset)), partners).keys


def key_by_hand(prompt: list[int], response: list[int]) -> list[int]:
    begin, end = (np.array(ids, "<i4").tobytes() for ids in (prompt, response))
    content = hashlib.sha256(len(begin).to_bytes(8, "little") + begin + end).digest()
    return np.frombuffer(content[:16], "<i8").tolist()


def test_the_keys_are_those_of_every_store_so_far() -> None:
    assert keys_of(dataset_of(ROWS[:4])).tolist() == RECORDED
    assert batch_keys(batch_of(ROWS[:4])).tolist() == RECORDED


SIZES = [1, 3, 2, 2, 5, 1, 4, 2, 1, 3, 2, 2]
PARTNERS = np.array([11, 0, 1, 2, 2, 4, 0, 6, 7, 8, 3, 10])


VIEWS: dict[str, np.ndarray] = {
    "whole": np.arange(12),
    "slice": np.arange(3, 9),
    "shuffled": np.random.default_rng(1).permutation(12),
    "repeated": np.array([4, 0, 4, 10]),
}


@pytest.mark.parametrize("blocks", [[12], [5, 7], [1, 4, 4, 3], [1] * 12])
@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("mismatched", [False, True])
def test_keys_of_any_number_of_responses(blocks: list[int], view: str, mismatched: bool) -> None:
    rows, ends = random_rows(SIZES), np.cumsum(blocks)
    stored = concatenate_datasets([dataset_of(rows[end - n : end]) for n, end in zip(blocks, ends, strict=True)])
    dataset, rows = stored.select(VIEWS[view]), [rows[i] for i in VIEWS[view]]
    partners = np.roll(np.arange(len(rows)), 2) if mismatched else None
    for asked in (np.arange(len(rows)), np.array([3, 1])):
        found = dataset_keys(dataset, asked, partners)
        for place, row in enumerate(asked):
            prompt, responses = rows[row]["prompt_ids"], rows[row]["response_ids"]
            if partners is not None:
                others = rows[partners[row]]["response_ids"]
                responses = [*responses, *(others[j % len(others)] for j in range(len(responses)))]
            lengths, own = list(map(len, responses)), slice(*found.offsets[place : place + 2])
            assert found.keys[own].tolist() == [key_by_hand(prompt, response) for response in responses]
            assert found.lengths[own].tolist() == lengths
            assert found.prompts[place] == len(prompt)
            assert found.packed[place] == len(prompt) + sum(lengths)
            assert found.padded[place] == len(lengths) * (len(prompt) + max(lengths))
        assert len(found.keys) == found.offsets[-1]


@pytest.mark.parametrize("mismatched", [False, True])
def test_batches_and_datasets_have_the_same_keys(mismatched: bool) -> None:
    rows = random_rows(SIZES)
    partners = PARTNERS if mismatched else None
    found = dataset_keys(dataset_of(rows), np.arange(12), partners)
    assert len(np.unique(found.keys, axis=0)) >= sum(SIZES)
    some = [11, 3, 8, 6]
    [batch] = batches_of(dataset_of(rows), some, 4, 0, shape="ranked", partners=partners)
    expected = [found.keys[found.offsets[row] : found.offsets[row + 1]] for row in some]
    np.testing.assert_array_equal(batch_keys(batch), np.concatenate(expected))


def test_a_run_that_wants_no_rows_has_no_keys() -> None:
    found = dataset_keys(dataset_of(ROWS), np.arange(0), np.arange(20))
    assert (len(found.keys), len(found.packed), found.offsets.tolist()) == (0, 0, [0])


def test_a_left_padded_batch_has_the_same_keys() -> None:
    batch = batch_of(ROWS[:3])
    turned = replace(batch, input_ids=batch.input_ids.clone(), attention_mask=batch.attention_mask.flip(1))
    for row, mask in enumerate(batch.attention_mask.bool()):
        turned.input_ids[row] = torch.cat([batch.input_ids[row, ~mask], batch.input_ids[row, mask]])
    np.testing.assert_array_equal(batch_keys(turned), batch_keys(batch))


@pytest.mark.parametrize("rows", [ROWS, RANKED, UNPAIRED], ids=["pairs", "ranked", "unpaired"])
def test_the_opposite_label_has_the_same_keys(rows: list[dict[str, Any]]) -> None:
    found, expected = (dataset_keys(dataset_of(of), np.arange(len(rows))) for of in (swapped(rows), rows))
    np.testing.assert_array_equal(found.offsets, expected.offsets)
    for begin, end in pairwise(expected.offsets):
        np.testing.assert_array_equal(found.keys[begin:end], expected.keys[begin:end][::-1])


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
