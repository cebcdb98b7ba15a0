"""Work that ranks share: everybody has everybody's result, or the same error."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import accelerate.utils
import pytest

from alignzoo.distributed.ranks import on_all_ranks
from alignzoo.errors import AlignzooError, DataError, MethodError
from alignzoo.probe.source import probe_source
from alignzoo.report import Reporter


def one_of_two(monkeypatch: pytest.MonkeyPatch, rank: int, other: tuple[list[Any], AlignzooError | None]) -> Any:
    """The accelerator of a rank; ``other`` is what the other rank tells."""

    def gather(mine: list[Any]) -> list[Any]:
        return [*mine, other] if rank == 0 else [other, *mine]

    monkeypatch.setattr(accelerate.utils, "gather_object", gather)
    return SimpleNamespace(num_processes=2, process_index=rank, is_main_process=rank == 0)


def refuse() -> Any:
    raise MethodError("mine", hint="my hint")


def test_results_come_in_the_order_of_the_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    assert on_all_ranks(one_of_two(monkeypatch, 0, (["other"], None)), lambda: "mine") == ["mine", "other"]
    assert on_all_ranks(one_of_two(monkeypatch, 1, (["other"], None)), lambda: "mine") == ["other", "mine"]
    alone: Any = SimpleNamespace(num_processes=1)
    assert on_all_ranks(alone, lambda: "alone") == ["alone"]


def test_a_rank_that_did_its_work_raises_what_another_one_met(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="theirs"):
        on_all_ranks(one_of_two(monkeypatch, 0, ([], DataError("theirs"))), lambda: 1)
    with pytest.raises(MethodError, match="mine") as found:
        on_all_ranks(one_of_two(monkeypatch, 1, ([0], None)), refuse)
    assert found.value.hint == "my hint"


def test_the_other_ranks_raise_what_the_first_one_meets_at_the_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    refusal = DataError("the probe has 3 pairs to train on and 0 to validate it")
    parts: Any = None  # not looked at beyond the first rank
    probe = probe_source(None, parts, "w", one_of_two(monkeypatch, 1, ([], refusal)), None, Reporter())
    with pytest.raises(DataError, match="the probe has 3 pairs"):
        probe(None)
