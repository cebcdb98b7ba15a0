"""Kept values come back as they were, or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from heard import Heard
from reference_helpers import some_values

from alignzoo.reference.shards import Values
from alignzoo.reference.store import Store

PARTS = (some_values(5, seed=1, tokens=True), some_values(300, seed=2, tokens=True))


def sums(values: Values) -> Values:
    return Values(values.keys, values.logps, values.lengths)


def loaded(folder: Path, *, tokens: bool = False, report: Heard | None = None) -> Store:
    store = Store(folder, tokens=tokens, report=report or Heard())
    store.load()
    return store


def written(folder: Path, *, tokens: bool) -> list[Path]:
    store = Store(folder, tokens=tokens, report=Heard())
    for values in PARTS:
        store.write(values if tokens else sums(values))
    return sorted(folder.iterdir())


def assert_holds(store: Store, values: Values) -> None:
    places = store.find(values.keys)
    assert (places >= 0).all()
    np.testing.assert_array_equal(store.logps(places), values.logps)
    assert store.logps(places).dtype == values.logps.dtype
    if store.tokens:
        np.testing.assert_array_equal(np.concatenate(store.token_logps(places)), values.token_logps)


@pytest.mark.parametrize("tokens", [False, True])
def test_what_was_written_is_read(tokens: bool, tmp_path: Path) -> None:
    written(tmp_path, tokens=tokens)
    store = loaded(tmp_path, tokens=tokens)
    for values in PARTS:
        assert_holds(store, values)
    assert not store.has(some_values(9, seed=3).keys).any()


def test_sums_do_not_answer_for_tokens_and_tokens_answer_for_sums(tmp_path: Path) -> None:
    written(tmp_path / "sums", tokens=False)
    assert not loaded(tmp_path / "sums", tokens=True).has(PARTS[0].keys).any()
    written(tmp_path / "tokens", tokens=True)
    assert_holds(loaded(tmp_path / "tokens"), PARTS[1])


def test_the_same_values_are_one_file(tmp_path: Path) -> None:
    assert written(tmp_path, tokens=True) == written(tmp_path, tokens=True)


def cut_short(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def one_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)


def emptied(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("tokens", [False, True])
@pytest.mark.parametrize("damage", [cut_short, one_bit, emptied])
def test_a_damaged_file_is_told_and_makes_way(damage: Any, tokens: bool, tmp_path: Path) -> None:
    paths = written(tmp_path, tokens=tokens)
    largest = max(paths, key=lambda path: path.stat().st_size)
    damage(largest)
    heard = Heard()
    store = loaded(tmp_path, tokens=tokens, report=heard)
    [warning] = heard.warnings
    assert str(largest) in warning
    assert "damaged" in warning
    assert not largest.exists()
    assert not store.has(PARTS[1].keys).any()
    assert_holds(store, PARTS[0])


def test_keys_that_share_a_half_are_told_apart(tmp_path: Path) -> None:
    keys = np.array([[5, 1], [5, -2], [5, 9], [4, 1], [7, 7], [5, 2**62]], dtype=np.int64)
    store = Store(tmp_path, tokens=False, report=Heard())
    store.add(Values(keys, np.arange(6, dtype=np.float32), np.ones(6, dtype=np.int64)))
    store.index()
    np.testing.assert_array_equal(store.logps(store.find(keys[::-1])), [5, 4, 3, 2, 1, 0])
    absent = np.array([[5, 0], [5, 10], [6, 1], [8, 7], [-1, 1]], dtype=np.int64)
    assert not store.has(absent).any()


def test_of_several_values_of_one_response_the_same_counts_whatever_the_order(tmp_path: Path) -> None:
    keys, lengths = np.array([[5, 1], [4, 1]], dtype=np.int64), np.ones(2, dtype=np.int64)
    values = [Values(keys, np.array(logps, dtype=np.float32), lengths) for logps in ([-2.0, -1.0], [-1.5, -1.25])]
    for order in (values, values[::-1]):
        store = Store(tmp_path, tokens=False, report=Heard())
        for some in order:
            store.add(some)
        store.index()
        np.testing.assert_array_equal(store.logps(store.find(keys)), [-2.0, -1.25])


@pytest.mark.parametrize("tokens", [False, True])
def test_a_folder_that_cannot_be_written_is_told_once(tokens: bool, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    heard = Heard()
    store = loaded(tmp_path / "file" / "reference", tokens=tokens, report=heard)
    for values in PARTS:
        kept = values if tokens else sums(values)
        store.write(kept)
        store.add(kept)
    store.index()
    assert len(heard.warnings) == 1
    assert "ALIGNZOO_CACHE" in heard.warnings[0]
    for values in PARTS:
        assert_holds(store, values)


@pytest.mark.parametrize("tokens", [False, True])
def test_what_is_no_number_is_used_and_not_kept(tokens: bool, tmp_path: Path) -> None:
    values = some_values(6, tokens=tokens)
    values.logps[2] = np.nan
    store = Store(tmp_path, tokens=tokens, report=Heard())
    store.write(values)
    store.add(values)
    store.index()
    assert_holds(store, values)
    assert loaded(tmp_path, tokens=tokens).has(values.keys).tolist() == [True, True, False, True, True, True]
