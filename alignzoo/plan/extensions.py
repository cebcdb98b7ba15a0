"""The plugin extensions in a run's settings: model, data, evaluator and its judge."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from alignzoo.contract.card import DataExtension, EvaluatorExtension, Extension
from alignzoo.errors import AlignzooError
from alignzoo.plan.settings import Settings
from alignzoo.plugin.registry import Registry


def data_of(name: str | None, known: Registry) -> DataExtension | None:
    """The card of data by name; None for a path or a hub id."""
    card = known.named_extension("data", name)
    return card if isinstance(card, DataExtension) else None


def evaluator_of(settings: Settings, known: Registry) -> EvaluatorExtension | None:
    """The evaluator that goes with the run's data.

    Raises:
        AlignzooError: the evaluator named by the data is missing or broken.
    """
    data = data_of(settings.data, known)
    if data is None or data.evaluator is None:
        return None
    card = known.find_extension("evaluator", data.evaluator)
    return card if isinstance(card, EvaluatorExtension) else None


def judge_of(settings: Settings, known: Registry) -> Extension | None:
    """The default judge of the evaluator that goes with the run's data.

    Raises:
        AlignzooError: there is none of that name, or its plugin is broken.
    """
    evaluator = evaluator_of(settings, known)
    return known.find_extension("judge", evaluator.judge) if evaluator is not None and evaluator.judge else None


def evaluated_data(known: Registry) -> list[str]:
    """Names of the data that have an evaluator."""
    return [card.name for _, card in known.extensions("data") if isinstance(card, DataExtension) and card.evaluator]


def used_extensions(settings: Settings, known: Registry) -> Iterator[Extension]:
    """Everything but methods and commands that a run uses.

    Raises:
        AlignzooError: a requested extension does not exist.
    """
    named = [("model", settings.model), ("data", settings.data), ("data", settings.eval_data)]
    found = [known.named_extension(kind, name) for kind, name in named]  # type: ignore[arg-type]
    found += [evaluator_of(settings, known), judge_of(settings, known)]
    found += [known.find_extension("observer", name) for name in settings.observe]
    yield from (card for card in found if card is not None)
    for name in {settings.data_format, settings.eval_data_format} - {None}:
        with contextlib.suppress(AlignzooError):  # a built-in layout, or a mistake that reading the data reports
            yield known.find_extension("format", str(name))
