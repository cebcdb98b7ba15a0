"""What looks at more than one element of a sharded tensor finds what it finds on one process."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import pytest
import torch
from alignzoo_geometry import ascent, draws

from alignzoo.distributed.shards import beside, count, cut_like, is_sharded, whole, whole_state
from alignzoo.geometry.perturb import cosine, dot, norm, perturbed
from alignzoo.testing.ranks import on_two_ranks

SHAPES = [(5, 3), (1, 4), (7,), (4, 2, 2), (1,)]  # an uneven share, none at all for rank 1, and even ones
ROWS, COLUMNS = [(0,), (0,), (), (0,), ()], [(1,), (1,), (), (0, 2), ()]


def tensors(seed: int, *, zeros: bool = False) -> list[torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    found = [torch.randn(shape, generator=draw, dtype=torch.float64) for shape in SHAPES]
    if zeros:
        found[0][1] = found[0][4] = found[2][3] = 0.0
        found[3].zero_()
    return found


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def moved(cut: Callable[[list[torch.Tensor]], list[torch.Tensor]]) -> list[Any]:
    weights, delta = cut(tensors(1)), cut(tensors(2))
    with perturbed(weights, delta):
        inside = [whole(weight).clone() for weight in weights]
    return [*inside, *(whole(weight) for weight in weights)]


FIGURES: dict[str, Callable[[Callable[[list[torch.Tensor]], list[torch.Tensor]]], list[Any]]] = {
    "norm": lambda cut: [norm(cut(tensors(1)))],
    "dot": lambda cut: [dot(cut(tensors(1)), cut(tensors(2)))],
    "cosine": lambda cut: [cosine(cut(tensors(1)), cut(tensors(2)))],
    "count": lambda cut: [count([part > 0.3 for part in cut(tensors(1))])],
    "perturbed": moved,
    "state": lambda cut: list(whole_state({"kept": [cut(tensors(1))], "n": 1})["kept"][0]),
    "beside": lambda cut: [whole(part) for part in beside(tensors(2), cut(tensors(1)))],
    "noise": lambda cut: [whole(part) for part in draws.noise_like(cut(tensors(1)), generator())],
    "drawn": lambda cut: [whole(m) for m in draws.drawn_from([p > 0 for p in cut(tensors(1))], 6, generator())],
    "smallest": lambda cut: [draws.kth_smallest(cut(tensors(1)), 9, generator())],
    "smallest of some": lambda cut: [
        draws.kth_smallest(cut(tensors(1)), 4, generator(), among=[part > 0 for part in cut(tensors(1))])
    ],
    **{
        f"lengthened {over} {axes}": lambda cut, over=over, axes=axes: [
            whole(part) for part in ascent.lengthened(cut(tensors(1, zeros=True)), 0.7, over, axes) or []
        ]
        for over, axes in (("global", None), ("layer", None), ("neuron", ROWS), ("neuron", COLUMNS))
    },
}


def cut_over_ranks(parts: list[torch.Tensor]) -> list[torch.Tensor]:
    """The tensors as FSDP2 would cut them."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Shard, distribute_tensor

    mesh = init_device_mesh("cpu", (2,))
    cut = [distribute_tensor(part, mesh, [Shard(0)], src_data_rank=None) for part in parts]
    assert all(map(is_sharded, cut))
    return cut  # type: ignore[return-value]


def figures(*, sampled: bool) -> dict[str, list[Any]]:
    """All of them on this process's ranks; ``sampled``: order statistics of draws."""
    cut = cut_over_ranks if torch.distributed.is_initialized() else list
    exact = draws.EXACT_UP_TO
    draws.EXACT_UP_TO = 8 if sampled else exact
    try:
        return {name: figure(cut) for name, figure in FIGURES.items()}
    finally:
        draws.EXACT_UP_TO = exact


def both(sampled: bool) -> list[dict[str, list[Any]]]:
    return [{name: [as_plain(v) for v in values] for name, values in figures(sampled=sampled).items()}]


def as_plain(value: Any) -> Any:
    return value.detach().clone() if isinstance(value, torch.Tensor) else value


@lru_cache(maxsize=2)
def found(sampled: bool) -> tuple[dict[str, list[Any]], list[dict[str, list[Any]]]]:
    [alone] = both(sampled)
    return alone, [rank[0] for rank in on_two_ranks(both, sampled, modules=[__name__])]


@pytest.mark.parametrize("name", FIGURES)
@pytest.mark.parametrize("sampled", [False, True], ids=["exact", "sampled"])
def test_ranks_find_what_one_process_finds(name: str, sampled: bool) -> None:
    alone, ranks = found(sampled)
    assert alone[name]
    for rank in ranks:
        assert len(rank[name]) == len(alone[name])
        for one, other in zip(rank[name], alone[name], strict=True):
            torch.testing.assert_close(torch.as_tensor(one), torch.as_tensor(other), rtol=1e-12, atol=0)


def test_the_figures_are_those_of_the_definition() -> None:
    alone, _ = found(False)
    every = torch.cat([part.flatten() for part in tensors(1)])
    other = torch.cat([part.flatten() for part in tensors(2)])
    assert alone["norm"] == [pytest.approx(float(every.norm()))]
    assert alone["dot"] == [pytest.approx(float(every @ other))]
    assert alone["count"] == [int((every > 0.3).sum())]
    assert alone["smallest"] == [every.sort().values[8]]
    assert alone["smallest of some"] == [every[every > 0].sort().values[3]]
    assert sum(int(mask.sum()) for mask in alone["drawn"]) == 6


def test_a_whole_tensor_stays_as_it_is() -> None:
    tensor = torch.randn(3, 2)
    assert not is_sharded(tensor)
    assert cut_like(tensor, torch.zeros(3, 2)) is tensor
    assert torch.equal(whole(tensor), tensor)
