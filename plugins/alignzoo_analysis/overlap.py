"""Overlap of two neuron selections, compared with the overlap expected by chance."""

from __future__ import annotations

from math import exp, lgamma
from typing import Any

import torch

from alignzoo.errors import UsageError
from alignzoo.geometry.subspace import SavedSelection


def overlap(one: SavedSelection, other: SavedSelection) -> dict[str, Any]:
    """Neurons in each, shared neurons, Jaccard index (intersection / union) and the Jaccard index expected by chance.

    Chance is the exact mean over two independent uniform draws of the same sizes: from all neurons of the maps for the
    total, from one map's neurons for each map under ``layers``. It is None if the files do not record how many neurons
    their maps have; a Jaccard index is None if neither selects any.

    Raises:
        UsageError: the selections are of models of different widths.
    """
    widths: dict[str, int] | None = None
    if one.widths is not None and other.widths is not None:
        for name in one.widths.keys() & other.widths.keys():
            if one.widths[name] != other.widths[name]:
                raise UsageError(
                    f"{name} has {one.widths[name]} neurons in {one.path} and {other.widths[name]} in {other.path}",
                    hint="compare selections of the same model",
                )
        widths = {**one.widths, **other.widths}
    names = [*one.neurons, *(name for name in other.neurons if name not in one.neurons)]
    layers = []
    for name in sorted(names, key=_natural):
        a, b = (set(which.neurons.get(name, torch.empty(0)).tolist()) for which in (one, other))
        layers.append({"name": name, **_compared(len(a), len(b), len(a & b), widths[name] if widths else None)})
    sizes = [sum(len(index) for index in which.neurons.values()) for which in (one, other)]
    shared = sum(layer["shared"] for layer in layers)
    total = sum(widths[name] for name in names) if widths else None
    return {
        "selections": [str(one.path), str(other.path)],
        **_compared(sizes[0], sizes[1], shared, total),
        "layers": layers,
    }


def chance_jaccard(a: int, b: int, of: int) -> float:
    """The mean Jaccard index of two independent uniform draws of ``a`` and ``b`` out of ``of``, not both 0."""

    def choose(n: int, k: int) -> float:
        return lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1)

    return sum(
        exp(choose(a, k) + choose(of - a, b - k) - choose(of, b)) * k / (a + b - k)
        for k in range(max(0, a + b - of), min(a, b) + 1)
        if a + b > k
    )


def _compared(a: int, b: int, shared: int, of: int | None) -> dict[str, Any]:
    either = a + b - shared
    return {
        "neurons": [a, b],
        "of": of,
        "shared": shared,
        "jaccard": shared / either if either else None,
        "chance": chance_jaccard(a, b, of) if of is not None and either else None,
    }


def _natural(name: str) -> list[tuple[int, str]]:
    """Layer 2 before layer 10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in name.split(".")]
