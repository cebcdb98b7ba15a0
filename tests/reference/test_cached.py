"""A table of the reference's log-probs is the reference: the same numbers, computed once."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from heard import Heard
from reference_helpers import RANKED, UNPAIRED, Counting, filling, source_of, swapped

from alignzoo.contract.responses import ResponseBatch
from alignzoo.data.collate import TokenBatch
from alignzoo.distributed.sharding import resharding, shard
from alignzoo.errors import AlignzooError
from alignzoo.logprobs.logps import padded_logps
from alignzoo.logprobs.trial import Sample
from alignzoo.reference import compute
from alignzoo.reference.cached import CachedReference, cached_reference
from alignzoo.reference.frozen import Reference, as_reference
from alignzoo.testing.ranks import on_two_ranks
from alignzoo.testing.tiny import batch_of, cut, pair_rows, tiny_model, with_adapter

ROWS, OTHERS = pair_rows(30), pair_rows(8, seed=1, first_id=0)  # other pairs with the same ids, as held-out ones may be
PARTNERS = np.array([8, 0, 1, 2, 2, 4, 5, 6, 7])


def filled(
    folder: Path, *rows: list[dict[str, Any]], tokens: bool = False, at: int | None = None, heard: Heard | None = None
) -> tuple[CachedReference, Counting]:
    forward = Counting(tiny_model(), tokens=tokens, at=at)
    run = filling(folder, forward, heard or Heard(), tokens=tokens)
    return cached_reference(run, lambda: [source_of(part) for part in rows]), forward


@pytest.mark.parametrize("tokens", [False, True])
def test_a_table_gives_what_the_model_gives(tokens: bool, tmp_path: Path) -> None:
    cached, _ = filled(tmp_path, ROWS, OTHERS, tokens=tokens)
    frozen = Reference(tiny_model(), lambda model, batch: padded_logps(model, batch, tokens=tokens))
    for batch in [*cut(ROWS, 4), batch_of([ROWS[9], ROWS[0], ROWS[9]]), *cut(OTHERS, 1)]:
        found, expected = cached(batch).present(), frozen(batch).present()
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, rtol=1e-12, atol=1e-12)


def mismatched(rows: list[dict[str, Any]], partners: np.ndarray) -> list[list[list[int]]]:
    """The responses of each row's partner, as many as the row has."""
    of = [rows[partner]["response_ids"] for partner in partners]
    return [[some[j % len(some)] for j in range(len(row["response_ids"]))] for row, some in zip(rows, of, strict=True)]


@pytest.mark.parametrize("tokens", [False, True])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    ("shape", "rows", "partners"),
    [
        ("ranked", RANKED, None),
        ("ranked", RANKED, PARTNERS[:7] % 7),
        ("unpaired", UNPAIRED, None),
        ("unpaired", UNPAIRED, PARTNERS),
    ],
)
def test_a_table_of_lists_and_of_mismatched_responses(
    shape: Any, rows: list[dict[str, Any]], partners: np.ndarray | None, tokens: bool, packed: bool, tmp_path: Path
) -> None:
    forward = Counting(tiny_model(), tokens=tokens)
    source = source_of(rows, shape=shape, partners=partners, packed=packed)
    cached = cached_reference(filling(tmp_path, forward, Heard(), tokens=tokens), lambda: [source])
    assert sum(forward.sizes) == len(rows)
    kl = None if partners is None else mismatched(rows, partners)
    frozen = Reference(tiny_model(), lambda model, batch: padded_logps(model, batch, tokens=tokens))
    for some in ([0, 1, 2, 3], [4], [6, 2]):
        batch = batch_of([rows[i] for i in some], shape=shape, kl=None if kl is None else [kl[i] for i in some])
        found, expected = cached(batch), frozen(batch)
        assert found.present().keys() == expected.present().keys()
        assert found.paired == expected.paired
        assert (found.roles is None) == (partners is None)
        for name, value in expected.present().items():
            torch.testing.assert_close(getattr(found, name), value, rtol=1e-12, atol=1e-12)


def test_mismatched_responses_are_computed_where_they_are_wanted(tmp_path: Path) -> None:
    def computed(**given: Any) -> int:
        forward = Counting(tiny_model())
        cached_reference(filling(tmp_path, forward, Heard()), lambda: [source_of(UNPAIRED, shape="unpaired", **given)])
        return sum(forward.sizes)

    assert [computed(), computed(partners=PARTNERS), computed(partners=PARTNERS), computed()] == [9, 9, 0, 0]


def test_what_is_computed_is_counted_in_the_words_of_the_data(tmp_path: Path) -> None:
    heard = Heard()
    for rows, shape in ((RANKED, "ranked"), (UNPAIRED, "unpaired")):
        run = filling(tmp_path, Counting(tiny_model()), heard)
        cached_reference(run, lambda rows=rows, shape=shape: [source_of(rows, shape=shape)])
    assert [note.partition(" computed")[0] for note in heard.notes] == [
        "reference log-probs: 7 ranked rows",
        "reference log-probs: 9 unpaired rows",
    ]


def test_a_second_run_computes_nothing(tmp_path: Path) -> None:
    heard = Heard()
    _, forward = filled(tmp_path, ROWS, heard=heard)
    assert sum(forward.sizes) == 30
    assert heard.notes[0].startswith("reference log-probs: 30 pairs computed, 0 from earlier runs (")
    for rows in (ROWS, ROWS[::-1], ROWS[4:9], swapped(ROWS)):
        _, again = filled(tmp_path, rows, heard=heard)
        assert again.sizes == []
        assert heard.notes[-1].startswith(f"reference log-probs: 0 pairs computed, {len(rows)} from earlier runs (")
    _, more = filled(tmp_path, ROWS, OTHERS, heard=heard)
    assert sum(more.sizes) == 8
    assert heard.notes[-1].startswith("reference log-probs: 8 pairs computed, 30 from earlier runs (")


def test_rows_that_a_run_does_not_visit_are_not_computed(tmp_path: Path) -> None:
    source = source_of(ROWS, np.array([17, 3, 8]))
    forward = Counting(tiny_model())
    cached = cached_reference(filling(tmp_path, forward, Heard()), lambda: [source])
    assert sum(forward.sizes) == 3
    assert len(cached(batch_of([ROWS[8], ROWS[3]]))) == 4
    with pytest.raises(AlignzooError, match="no reference log-prob for row 4"):
        cached(batch_of([ROWS[8], ROWS[4]]))


@pytest.mark.parametrize("tokens", [False, True])
def test_a_sample_is_a_batch_of_its_own_whether_or_not_it_is_computed_already(tokens: bool, tmp_path: Path) -> None:
    class ByBatch(Counting):
        """A model whose last digits depend on how many rows share a pass."""

        def __call__(self, batch: TokenBatch) -> ResponseBatch:
            found = super().__call__(batch)
            return replace(found, logps=found.logps + 1e-6 * batch.rows)

    sample = batch_of([ROWS[3], ROWS[11], OTHERS[2]])  # the last one is no row of the run
    found, sizes = [], []
    for name, known in (("computed", None), ("known", ByBatch(tiny_model(), tokens=True)(sample))):
        forward = ByBatch(tiny_model(), tokens=tokens)
        run = replace(filling(tmp_path / name, forward, heard := Heard(), tokens=tokens), sample=Sample(sample, known))
        found.append(cached_reference(run, lambda: [source_of(ROWS)])(batch_of(ROWS)).present())
        sizes.append(forward.sizes)
        assert heard.notes[0].startswith("reference log-probs: 30 pairs computed, 0 from earlier runs (")
        assert len(list((tmp_path / name).iterdir())) == 1
    assert sizes[0] == [3, *sizes[1]]
    assert sum(sizes[1]) == 28
    assert all(torch.equal(found[0][field], found[1][field]) for field in found[0])
    assert filled(tmp_path / "known", ROWS, tokens=tokens)[1].sizes == []


def test_batches_hold_pairs_of_like_length_within_the_budget() -> None:
    source = source_of(ROWS)
    batches = list(source.batches(60))
    assert sorted(np.concatenate(batches)) == list(range(30))
    lengths = [source.lengths[batch] for batch in batches]
    assert all(one.sum() <= 60 for one in lengths)
    assert all(before.min() >= after.max() for before, after in pairwise(lengths))
    assert all(before.sum() + after[0] > 60 for before, after in pairwise(lengths))
    assert [len(batch) for batch in source.batches(1)] == [1] * 30


@pytest.mark.parametrize("tokens", [False, True])
def test_an_interrupted_run_goes_on_where_it_was(tokens: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, forward = filled(tmp_path / "whole", ROWS, tokens=tokens)
    assert len(forward.sizes) > 5
    monkeypatch.setattr(compute, "SECONDS_PER_SHARD", 0)
    with pytest.raises(KeyboardInterrupt):
        filled(tmp_path / "cut", ROWS, tokens=tokens, at=4)
    assert len(list((tmp_path / "cut").iterdir())) == 4
    resumed, rest = filled(tmp_path / "cut", ROWS, tokens=tokens)
    assert rest.sizes == forward.sizes[4:]
    found, expected = resumed(batch_of(ROWS)).present(), whole(batch_of(ROWS)).present()
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_a_truncated_file_is_rebuilt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compute, "SECONDS_PER_SHARD", 0)
    cached, forward = filled(tmp_path, ROWS)
    before, files = cached(batch_of(ROWS)), sorted(tmp_path.iterdir())
    assert len(files) == len(forward.sizes) > 2
    files[1].write_bytes(files[1].read_bytes()[:-5])
    heard = Heard()
    rebuilt, again = filled(tmp_path, ROWS, heard=heard)
    assert len(again.sizes) == len(heard.warnings) == 1
    assert torch.equal(rebuilt(batch_of(ROWS)).logps, before.logps)
    assert sorted(tmp_path.iterdir()) == files
    assert filled(tmp_path, ROWS)[1].sizes == []


@pytest.mark.parametrize("make", [tiny_model, lambda: with_adapter(tiny_model())], ids=["full", "adapter"])
def test_the_policy_is_left_as_it_was(make: Any, tmp_path: Path) -> None:
    model = make().train()
    flags = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    run = filling(tmp_path, Counting(model, at=2), Heard())
    with as_reference(model):
        assert not model.training
        assert not torch.is_grad_enabled()
        with pytest.raises(KeyboardInterrupt):
            cached_reference(run, lambda: [source_of(ROWS)])
    assert model.training
    assert torch.is_grad_enabled()
    assert {name: parameter.requires_grad for name, parameter in model.named_parameters()} == flags


def two_ranks(folder: str, tokens: bool, present: int) -> dict[str, Any]:
    """One of two ranks, each with a folder of its own, of which the second holds some pairs already."""
    import torch.distributed

    rank = torch.distributed.get_rank()
    mine = Path(folder) / f"rank-{rank}"
    if rank == 1 and present:
        here = filling(mine, Counting(tiny_model(), tokens=tokens), Heard(), tokens=tokens)
        values = compute.values_of(batch_of(ROWS[:present]), here.forward(batch_of(ROWS[:present])), tokens=tokens)
        here.store.write(values)
    cached, forward = filled(mine, ROWS, tokens=tokens)
    return {"pairs": sum(forward.sizes), "fields": cached(batch_of(ROWS)).present(), "files": len(list(mine.glob("*")))}


@pytest.mark.parametrize("tokens", [False, True])
def test_two_ranks_share_the_work_and_both_have_all(tokens: bool, tmp_path: Path) -> None:
    alone, _ = filled(tmp_path / "alone", ROWS, tokens=tokens)
    expected = alone(batch_of(ROWS)).present()
    for present in (0, 7):
        ranks = on_two_ranks(two_ranks, str(tmp_path / f"{present}"), tokens, present, modules=[__name__])
        assert ranks[0]["pairs"] + ranks[1]["pairs"] == 30
        assert min(rank["pairs"] for rank in ranks) > 5
        assert [rank["files"] for rank in ranks] == [1, bool(present)]  # the first one of a machine writes
        for rank in ranks:
            assert rank["fields"].keys() == expected.keys()
            for name, value in expected.items():
                torch.testing.assert_close(rank["fields"][name], value, rtol=1e-12, atol=1e-12)


def two_shards(folder: str) -> dict[str, Any]:
    """One of two ranks that hold a part of each weight, with batches that cannot be divided evenly."""
    import torch.distributed

    model = shard(tiny_model())
    forward = resharding(padded_logps)
    mine = Path(folder) / f"rank-{torch.distributed.get_rank()}"
    run = filling(mine, partial(forward, model), Heard(), together=True)
    with as_reference(model):
        cached = cached_reference(run, lambda: [source_of(ROWS[:8]), source_of(ROWS[8:9])])
        assert len(list(source_of(ROWS[:8]).batches(100))) % 2 == 0
    return cached(batch_of(ROWS[:9])).present()


def test_ranks_that_share_the_weights_take_the_same_passes(tmp_path: Path) -> None:
    expected = filled(tmp_path / "alone", ROWS)[0](batch_of(ROWS[:9])).present()
    for found in on_two_ranks(two_shards, str(tmp_path), modules=[__name__]):
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, rtol=1e-12, atol=1e-12)
