"""Which neurons a selective controller may perturb: selected by cosine with a direction, at random, or from a file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from alignzoo.base.files import local_path, whole, write_json
from alignzoo.base.stored import DIGEST, value_digest
from alignzoo.distributed.shards import whole as unsharded
from alignzoo.errors import AlignzooError, DamagedError, UsageError
from alignzoo.geometry.projections import Projection, linear_maps

Select = Literal["anti-toxic", "toxic", "abs", "random", "all"]
_CRITERIA = {
    "anti-toxic": "lowest cosine with the unsafe direction",
    "toxic": "highest cosine with the unsafe direction",
    "abs": "largest absolute cosine with the unsafe direction",
    "random": "at random",
}
FILE, FACTS_FILE = "selection.safetensors", "selection.json"
_WIDTHS, _PEFT = "widths", "base_model.model."


def select_neurons(
    projections: Sequence[Projection],
    select: Select,
    share: float | None = None,
    *,
    count: int | None = None,
    direction: torch.Tensor | None = None,
    seed: int = 0,
) -> list[torch.Tensor]:
    """Sorted indices of the selected neurons of each projection.

    Over all maps together, ``count`` neurons (or a ``share`` of them, rounded down to at least one): those with the
    smallest cosine between value vector and ``direction`` (``anti-toxic``), the largest (``toxic``), the largest
    absolute one (``abs``), at random (``random``), or all.

    Args:
        direction: ``(hidden,)``, pointing from safe to unsafe; needed by the three based on cosine.

    Raises:
        UsageError: the count exceeds the number of neurons.
    """
    widths = [projection.inner for projection in projections]
    if select == "all":
        return [torch.arange(width) for width in widths]
    if count is None:
        assert share is not None
        count = max(1, int(share * sum(widths)))
    if count > sum(widths):
        raise UsageError(
            f"--geometry.count {count} is more than the {sum(widths)} neurons of the {len(widths)} maps",
            hint="use fewer, or --geometry.select all",
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


def described(selected: int, of: int, select: str, noun: str = "neurons") -> str:
    """A selection in words: ``selected 15/1,536 MLP neurons (0.977 %, lowest cosine with the unsafe direction)``."""
    return f"selected {selected:,}/{of:,} {noun} ({100 * selected / of:.3g} %, {_CRITERIA.get(select, select)})"


def neuron_cosines(projections: Sequence[Projection], direction: torch.Tensor) -> torch.Tensor:
    """Cosine of every value vector with ``direction``, all maps concatenated, fp32 on the CPU."""
    direction = direction.detach().float().cpu()
    return torch.cat(
        [
            torch.nn.functional.cosine_similarity(unsharded(p.value_vectors()).float().cpu(), direction[None], dim=-1)
            for p in projections
        ]
    )


def save_selection(
    folder: Path, projections: Sequence[Projection], selected: Sequence[torch.Tensor], facts: Mapping[str, object]
) -> None:
    """``selection.safetensors`` (indices by map name) and ``selection.json`` (how they were selected)."""
    folder.mkdir(exist_ok=True)
    names = [projection.name for projection in projections]
    widths = {projection.name: projection.inner for projection in projections}
    indices = {name: index.contiguous() for name, index in zip(names, selected, strict=True)}
    with whole(folder / FILE) as path:
        save_file(indices, path, metadata={_WIDTHS: json.dumps(widths), DIGEST: _digest(indices, widths)})
    counts = {name: len(index) for name, index in zip(names, selected, strict=True)}
    write_json(folder / FACTS_FILE, {**facts, "neurons": sum(counts.values()), "neurons_by_layer": counts})


@dataclass(frozen=True)
class SavedSelection:
    """A saved selection.

    Attributes:
        path: the file it was read from.
        neurons: sorted indices, int64 ``(n,)``, by map name.
        widths: the number of neurons of each map; None if the file does not say.
    """

    path: Path
    neurons: dict[str, torch.Tensor]
    widths: dict[str, int] | None

    @classmethod
    def read(cls, where: str | Path) -> SavedSelection:
        """From a ``selection.safetensors``, its folder, or a run folder.

        Raises:
            UsageError: there is none.
            AlignzooError: it is damaged, or contains anything but sorted neuron indices.
        """
        path = selection_file(where)
        if path is None:
            raise UsageError(
                f"no saved selection in {where}",
                hint=f"give a {FILE}, its folder, or a run folder with geometry/{FILE}",
            )
        try:
            with safe_open(path, "pt") as file:
                neurons = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
                stated = file.metadata() or {}
        except (OSError, SafetensorError) as error:
            raise DamagedError(path, str(error), hint="save the selection again") from error
        widths = _widths(path, neurons, stated) if {_WIDTHS, DIGEST} & set(stated) else None
        neurons = {name.removeprefix(_PEFT): index for name, index in neurons.items()}
        for name, index in neurons.items():
            if (
                index.dtype != torch.int64
                or index.dim() != 1
                or bool((index.diff() <= 0).any())
                or bool((index < 0).any())
            ):
                raise AlignzooError(
                    f"{path}: {name} is not a list of neurons",
                    hint="a selection contains ascending int64 input indices by map name",
                )
        if not sum(map(len, neurons.values())):
            raise AlignzooError(f"{path} selects no neurons", hint="save a selection with at least one")
        return cls(path, neurons, widths)

    def on(self, model: Any) -> tuple[list[Projection], list[torch.Tensor]]:
        """The maps of ``model`` named by the selection, and the indices of each, in the model's order.

        Raises:
            UsageError: the model has no such map, or one with another number of inputs.
        """
        maps = {projection.name: projection for projection in linear_maps(model)}
        hint = "it was saved for another model; select neurons on this one"
        for name, index in self.neurons.items():
            if name not in maps:
                raise UsageError(f"{self.path} selects neurons of {name}, which this model does not have", hint=hint)
            width, stated = maps[name].inner, (self.widths or {}).get(name)
            if stated is not None and stated != width:
                raise UsageError(
                    f"{self.path}: {name} had {stated} neurons, but in this model it has {width}", hint=hint
                )
            if len(index) and int(index[-1]) >= width:
                raise UsageError(f"{self.path} selects neuron {int(index[-1])} of {name}, which has {width}", hint=hint)
        projections = [projection for name, projection in maps.items() if name in self.neurons]
        return projections, [self.neurons[projection.name] for projection in projections]


def _widths(path: Path, neurons: dict[str, torch.Tensor], stated: dict[str, str]) -> dict[str, int]:
    """The widths in the header of a selection saved by alignzoo; other files have none.

    Raises:
        DamagedError: the content has changed.
    """
    try:
        widths: dict[str, int] = json.loads(stated[_WIDTHS])
        same = stated[DIGEST] == _digest(neurons, widths)
    except (KeyError, ValueError, RecursionError) as error:
        raise DamagedError(path, f"{error} in its header", hint="save the selection again") from error
    if not same:
        raise DamagedError(path, "its content is not what was written", hint="save the selection again")
    return widths


def _digest(neurons: Mapping[str, torch.Tensor], widths: Mapping[str, int]) -> str:
    return value_digest([{name: [str(index.dtype), index.tolist()] for name, index in neurons.items()}, widths])


def selection_file(where: str | Path) -> Path | None:
    """The selection file at or inside a path; None if there is none."""
    given = local_path(where)
    return next((path for path in (given, given / FILE, given / "geometry" / FILE) if path.is_file()), None)
