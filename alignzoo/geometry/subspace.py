"""Which neurons a selective controller may perturb."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import torch
from safetensors.torch import save_file

from alignzoo.errors import UsageError
from alignzoo.geometry.projections import Projection

Select = Literal["anti-toxic", "toxic", "abs", "random", "all"]


def select_neurons(
    projections: Sequence[Projection],
    select: Select,
    share: float,
    *,
    direction: torch.Tensor | None = None,
    seed: int = 0,
) -> list[torch.Tensor]:
    """Sorted indices of the selected neurons of each projection.

    Over all layers together, ``share`` of the neurons with the smallest cosine of value vector and ``direction``
    (``anti-toxic``), the largest (``toxic``), the largest absolute one (``abs``), drawn at random, or all of them.

    Args:
        direction: ``(hidden,)``, pointing from safe to unsafe; needed by the three that go by cosine.

    Raises:
        UsageError: the share selects no neuron at all.
    """
    widths = [projection.inner for projection in projections]
    if select == "all":
        return [torch.arange(width) for width in widths]
    count = round(share * sum(widths))
    if count == 0:
        raise UsageError(
            f"--geometry.share {share:g} of {sum(widths)} neurons selects none",
            hint=f"use at least {1 / sum(widths):.1g}",
        )
    if select == "random":
        scores = torch.rand(sum(widths), generator=torch.Generator().manual_seed(seed))
    else:
        assert direction is not None
        cosine = neuron_cosines(projections, direction)
        scores = {"anti-toxic": cosine, "toxic": -cosine, "abs": -cosine.abs()}[select]
    chosen = torch.argsort(scores, stable=True)[:count]
    mask = torch.zeros(sum(widths), dtype=torch.bool)
    mask[chosen] = True
    return [part.nonzero()[:, 0] for part in mask.split(widths)]


def neuron_cosines(projections: Sequence[Projection], direction: torch.Tensor) -> torch.Tensor:
    """Cosine of every value vector with ``direction``, all layers in a row, fp32 on the CPU."""
    direction = direction.detach().float().cpu()
    return torch.cat(
        [
            torch.nn.functional.cosine_similarity(p.value_vectors().float().cpu(), direction[None], dim=-1)
            for p in projections
        ]
    )


def save_selection(
    folder: Path, projections: Sequence[Projection], selected: Sequence[torch.Tensor], facts: Mapping[str, object]
) -> None:
    """``selection.safetensors`` (indices by layer name) and ``selection.json`` (what they were chosen by)."""
    folder.mkdir(parents=True, exist_ok=True)
    names = [projection.name for projection in projections]
    save_file(
        {name: index.contiguous() for name, index in zip(names, selected, strict=True)},
        folder / "selection.safetensors",
    )
    counts = {name: len(index) for name, index in zip(names, selected, strict=True)}
    text = json.dumps({**facts, "neurons": sum(counts.values()), "neurons_by_layer": counts}, indent=2)
    (folder / "selection.json").write_text(text + "\n", encoding="utf-8")
