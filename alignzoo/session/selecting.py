"""Runs a plan's selectors on the training rows: after label noise, before the order of rows is drawn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from alignzoo.contract.card import Card
from alignzoo.contract.chosen import Chosen
from alignzoo.contract.selector import Selection, SelectionContext, SelectionModel, Selector, SelectorCard
from alignzoo.data.asked import check_columns
from alignzoo.data.collate import batch_columns, batches_of
from alignzoo.data.columns import column
from alignzoo.data.division import Division
from alignzoo.data.lengths import lengths_of
from alignzoo.data.selection import Selected, apply, in_words, record, without_changes
from alignzoo.data.shapes import NOUNS, SHAPES, Shape
from alignzoo.distributed.ranks import on_all_ranks
from alignzoo.errors import IncompatibleError, MethodError
from alignzoo.logprobs.logps import padded_logps
from alignzoo.plan.plan import Method
from alignzoo.plan.settings import Settings
from alignzoo.plugin.build import instantiate
from alignzoo.plugin.guard import guarded
from alignzoo.report import Reporter

if TYPE_CHECKING:
    from accelerate import Accelerator
    from datasets import Dataset

    from alignzoo.contract.responses import ResponseBatch
    from alignzoo.data.collate import TokenBatch

ROWS_AT_A_TIME = 8
"""Rows of a forward pass over all rows."""


def selected(
    methods: Sequence[Method],
    division: Division,
    settings: Settings,
    model: Callable[[Dataset], SelectionModel],
    accelerator: Accelerator,
    report: Reporter,
    folder: Path | None,
) -> Selected:
    """The training rows after these selectors, the same on all ranks; with ``folder``, recorded there.

    Args:
        model: the policy, for some rows; called only for selectors that ask for it.

    Raises:
        IncompatibleError, DataError: a selector cannot read the data, before any of them runs; or no row is left.
        MethodError: a selector failed, or returned no selection of its rows.
        AlignzooError: a resumed run selects other rows than are recorded.
    """
    for method in methods:
        _check_readable(method, division, settings.data)
    rows = Selected(division.train, division.flipped)
    for method in methods:
        name = method.card.name
        context = context_of(method, rows.rows, division.shape, division.flipped, settings.seed, report, model)
        answers = on_all_ranks(accelerator, partial(selection_of, method, context))
        rows = apply(rows, answers[0], name=name, shape=division.shape)
        report.note(in_words(rows.summaries[-1], division.shape))
    if methods:
        on_all_ranks(accelerator, lambda: record(rows, folder) if folder is not None else None)
    return without_changes(rows)


def _check_readable(method: Method, division: Division, source: str) -> None:
    """Refuse rows of a shape, or without the columns, that a selector reads."""
    card = method.card
    assert isinstance(card, SelectorCard)
    if division.shape not in card.shapes:
        able = " or ".join(NOUNS[shape] for shape in SHAPES if shape in card.shapes)
        raise IncompatibleError(
            f"{source}: --selector {card.name} reads {able}, but the data has {NOUNS[division.shape]}",
            hint="leave the selector out, or use other data; docs/data.md lists the layouts",
        )
    check_columns(method.needs, division.train, division.shape, source)


def selection_of(method: Method, context: SelectionContext) -> Selection:
    """What a new selector makes of the rows.

    Raises:
        MethodError: it failed, or returned something else.
    """
    selector: Selector = instantiate(method.card, method.options)
    with guarded(f"selector {method.card.name!r} failed in select()"):
        selection = selector.select(context)
    checked(method.card, selection)
    return selection


def checked(card: Card, selection: Selection) -> None:
    """Refuse what is no selection, or keeps an order that the card does not speak of.

    Raises:
        MethodError: it is one of these.
    """
    if not isinstance(selection, Selection):
        raise MethodError(
            f"selector {card.name!r} returned a {type(selection).__name__}",
            hint="select() returns an alignzoo.interfaces.Selection",
        )
    if selection.keep_order and not getattr(card, "orders", False):
        raise MethodError(
            f"selector {card.name!r} keeps the order of its rows, which its card does not say",
            hint="set orders=True on the card, so that two such selectors are not combined",
        )


def context_of(
    method: Chosen,
    rows: Dataset,
    shape: Shape,
    noisy: frozenset[int],
    seed: int,
    report: Reporter,
    model: Callable[[Dataset], SelectionModel],
) -> SelectionContext:
    """What a selector can read of these rows: the columns that it needs, and the policy if its card says so."""

    def values(name: str, given: bool = True) -> Any:
        return column(rows, name).to_pylist() if given and name in rows.column_names else None

    def loaded() -> SelectionModel:
        if not getattr(method.card, "loads", False):
            raise LookupError(f"selector {method.card.name!r} reads ctx.model, and its card lacks loads=True")
        return model(rows)

    ids = column(rows, "row_id").to_numpy()
    return SelectionContext(
        shape=shape,
        row_ids=ids,
        labels=column(rows, "label").to_numpy() if "label" in rows.column_names else None,
        safe=values("safe", "safety" in method.needs),
        scores=values("score", "scores" in method.needs),
        groups=values("group", "groups" in method.needs),
        simulated=np.isin(ids, np.fromiter(noisy, np.int64)),
        seed=seed,
        report=report,
        _column=values,
        _model=loaded,
    )


def model_of(
    policy: Any,
    rows: Dataset,
    shape: Shape,
    pad_id: int,
    accelerator: Accelerator,
    report: Reporter,
    size: int = ROWS_AT_A_TIME,
) -> SelectionModel:
    """The policy, for a selector that reads these rows."""
    device, columns = next(policy.parameters()).device, batch_columns(rows)

    def forward(model: Any, indices: Sequence[int], *, whole: bool = False) -> ResponseBatch:
        (batch,) = batches_of(columns, list(indices), max(1, len(indices)), pad_id, shape=shape)
        with accelerator.autocast():
            return padded_logps(model, _whole(batch) if whole else batch)

    def scan(model: Any, *, whole: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
        sizes = lengths_of(rows)
        order, responses = np.argsort(sizes.longest, kind="stable"), sizes.responses
        offsets = np.concatenate([[0], np.cumsum(responses)])
        logps, lengths = torch.zeros(int(offsets[-1])), torch.zeros(int(offsets[-1]))
        with report.progress(len(rows), "log-probs for the selector", unit="row") as bar, torch.no_grad():
            for start in range(0, len(order), size):
                some = order[start : start + size]
                found = forward(model, some.tolist(), whole=whole)
                places = torch.as_tensor(np.concatenate([offsets[row] + np.arange(responses[row]) for row in some]))
                logps[places], lengths[places] = found.logps.float().cpu(), found.lengths.float().cpu()
                for _ in some:
                    bar.advance()
        return logps, lengths

    return SelectionModel(policy, device, forward, scan)


def _whole(batch: TokenBatch) -> TokenBatch:
    """The batch with all its tokens, prompt included, counted as the response's."""
    return replace(batch, response_mask=batch.attention_mask.bool(), pack=None)
