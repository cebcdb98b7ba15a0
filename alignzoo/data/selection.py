"""Applies what selectors decide to the training rows, and records it row by row."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from alignzoo.base.files import write_text
from alignzoo.contract.selector import Selection
from alignzoo.data.columns import column, take
from alignzoo.data.digests import digest
from alignzoo.data.noise import flip_rows
from alignzoo.data.quiet import quiet_datasets
from alignzoo.data.shapes import NOUNS, Shape
from alignzoo.errors import AlignzooError, DataError, MethodError

if TYPE_CHECKING:
    from datasets import Dataset

MANIFEST = "selection.jsonl"
UNNAMED = "no reason given"
_FLIPPED: dict[Shape, str] = {"pairs": "swapped", "ranked": "reversed", "unpaired": "relabelled"}


@dataclass(frozen=True)
class Selected:
    """The training rows after some selectors.

    Attributes:
        flipped: ids of the rows whose label is the opposite of the data's, label noise included.
        prefixes: by id, how many tokens of the row's last response have moved to its prompt.
        keep_order: whether training visits the rows in this order.
        left_out: groups whose held-out rows are evaluated apart.
        summaries: what each selector did, JSON-able.
        changes: one entry per changed row and selector, JSON-able.
    """

    rows: Dataset
    flipped: frozenset[int] = frozenset()
    prefixes: dict[int, int] = field(default_factory=dict)
    keep_order: bool = False
    left_out: frozenset[str] = frozenset()
    summaries: tuple[dict[str, Any], ...] = ()
    changes: tuple[dict[str, Any], ...] = ()


def apply(before: Selected, selection: Selection, *, name: str, shape: Shape) -> Selected:
    """The rows after one more selector, called ``name`` in messages and records.

    Raises:
        MethodError: the selection is not one of these rows.
        DataError: no row is left.
    """
    ids = column(before.rows, "row_id").to_numpy()
    kept = np.arange(len(ids)) if selection.rows is None else np.asarray(selection.rows, np.int64).reshape(-1)
    flips = np.sort(np.fromiter(selection.flipped, np.int64))
    _check(before, selection, kept, flips, name, shape)
    rows = flip_rows(before.rows, flips) if len(flips) else before.rows
    if selection.prefixes:
        rows = _with_prefixes(rows, selection.prefixes, name)
    if not np.array_equal(kept, np.arange(len(ids))):
        rows = take(rows, kept)
    flipped = before.flipped ^ frozenset(ids[flips].tolist())
    prefixes = before.prefixes | {int(ids[row]): count for row, count in selection.prefixes.items()}
    changes = _changes(ids, kept, flips, selection, name)
    summary = _summary(len(ids), len(kept), changes, selection, name)
    return Selected(
        rows,
        flipped,
        prefixes,
        before.keep_order or selection.keep_order,
        before.left_out | frozenset(selection.left_out),
        (*before.summaries, summary),
        (*before.changes, *changes),
    )


def _check(
    before: Selected, selection: Selection, kept: np.ndarray, flips: np.ndarray, name: str, shape: Shape
) -> None:
    count, noun = len(before.rows), NOUNS[shape]
    if len(kept) == 0:
        reasons = ", ".join(f"{reason}: {n:,}" for reason, n in Counter(selection.reasons.values()).most_common())
        raise DataError(
            f"selector {name!r} leaves none of the {count:,} {noun} to train on" + (f" ({reasons})" if reasons else ""),
            hint="use other data, or leave the selector out",
        )
    for what, rows in {"rows": kept, "flipped": flips, "prefixes": np.fromiter(selection.prefixes, np.int64)}.items():
        if len(rows) and not (rows.min() >= 0 and rows.max() < count):
            raise _wrong(name, f"{what} names row {rows.max() if rows.max() >= count else rows.min()}", count)
        if len(np.unique(rows)) < len(rows):
            raise _wrong(name, f"{what} names a row twice", count)
        if not np.isin(rows, kept).all():
            raise _wrong(name, f"{what} names a row that is not kept", count)
    if len(flips) and shape == "demonstrations":
        raise _wrong(name, "it flips demonstrations, which have no labels", count)
    if selection.prefixes and shape not in ("pairs", "ranked"):
        raise _wrong(name, f"it moves tokens of a second response, and {noun} have one", count)
    ids = column(before.rows, "row_id").to_numpy()
    if any(int(ids[row]) in before.prefixes for row in (*flips.tolist(), *selection.prefixes)):
        raise MethodError(
            f"selector {name!r} changes responses whose first tokens an earlier selector moved to the prompt",
            hint=f"put --selector {name} first",
        )


def _wrong(name: str, what: str, count: int) -> MethodError:
    return MethodError(
        f"selector {name!r} returned a wrong selection: {what}",
        hint=f"select() was given {count:,} rows, numbered from 0; see alignzoo.interfaces.Selection",
    )


def _with_prefixes(rows: Dataset, prefixes: Any, name: str) -> Dataset:
    """The rows with the first tokens of their last responses at the end of their prompts; only these are rewritten.

    The texts stay as the data has them.
    """
    import datasets

    places = np.sort(np.fromiter(prefixes, np.int64))
    counts = [int(prefixes[int(place)]) for place in places]

    def moved(block: dict[str, list[Any]], numbers: list[int]) -> dict[str, list[Any]]:
        for i, number in enumerate(numbers):
            *others, last = block["response_ids"][i]
            count = counts[number]
            if not 0 < count < len(last):
                raise _wrong(name, f"it moves {count} of the {len(last)} tokens of row {block['row_id'][i]}", len(rows))
            block["prompt_ids"][i] = [*block["prompt_ids"][i], *last[:count]]
            block["response_ids"][i] = [*others, last[count:]]
        return block

    some = take(rows, places)
    with quiet_datasets():
        changed = some.map(
            moved,
            batched=True,
            with_indices=True,
            features=rows.features,
            new_fingerprint=digest(some._fingerprint, "prefixes", counts),
            load_from_cache_file=False,
            keep_in_memory=True,
        )
    both = datasets.concatenate_datasets([rows, changed])
    order = np.arange(len(rows))
    order[places] = len(rows) + np.arange(len(places))
    return take(both, order)


def _changes(
    ids: np.ndarray, kept: np.ndarray, flips: np.ndarray, selection: Selection, name: str
) -> list[dict[str, Any]]:
    """One entry per changed row, in the order of the rows."""
    entries: dict[int, dict[str, Any]] = {}

    def note(row: int, **what: Any) -> None:
        entries.setdefault(row, {"selector": name, "row_id": int(ids[row])}).update(what)

    for row in np.setdiff1d(np.arange(len(ids)), kept).tolist():
        note(row, dropped=selection.reasons.get(row, UNNAMED))
    for row in flips.tolist():
        note(row, flipped=True)
    for row, count in selection.prefixes.items():
        note(int(row), prefix=int(count))
    for place in np.flatnonzero(kept != np.sort(kept)).tolist():
        note(int(kept[place]), place=place)
    for row in entries.keys() & selection.notes.keys():
        note(row, note=selection.notes[row])
    return [entries[row] for row in sorted(entries)]


def _summary(
    rows: int, kept: int, changes: Sequence[dict[str, Any]], selection: Selection, name: str
) -> dict[str, Any]:
    dropped = Counter(change["dropped"] for change in changes if "dropped" in change)
    return {
        "selector": name,
        "rows": rows,
        "kept": kept,
        "dropped": dict(dropped.most_common()),
        "flipped": sum("flipped" in change for change in changes),
        "prefixed": sum("prefix" in change for change in changes),
        "moved": sum("place" in change for change in changes),
        "keep_order": selection.keep_order,
        **({"left_out": sorted(selection.left_out)} if selection.left_out else {}),
        "facts": {key: float(value) for key, value in selection.facts.items()},
    }


def in_words(summary: dict[str, Any], shape: Shape) -> str:
    """A summary as one line, such as ``selector safedpo: 1,204 of 8,000 pairs swapped, 311 dropped (both unsafe)``."""
    name, rows, noun = summary["selector"], f"{summary['rows']:,}", NOUNS[shape]
    done = [(summary["flipped"], _FLIPPED.get(shape, ""))]
    done += [(summary["prefixed"], "with a longer prompt"), (summary["moved"], "moved")]
    words = [f"{count:,} {what}" for count, what in done if count]
    if summary["dropped"]:
        reasons = [
            f"{reason}: {n:,}" if len(summary["dropped"]) > 1 else reason for reason, n in summary["dropped"].items()
        ]
        words.append(f"{sum(summary['dropped'].values()):,} dropped ({', '.join(reasons)})")
    first, _, rest = (words or ["0 changed"])[0].partition(" ")
    line = ", ".join([f"{first} of {rows} {noun} {rest}", *words[1:]])
    facts = "".join(f"; {key.replace('_', ' ')} {value:.4g}" for key, value in summary["facts"].items())
    return f"selector {name}: {line}" + (", in a fixed order" if summary["keep_order"] else "") + facts


def record(selected: Selected, folder: Path) -> None:
    """Write which rows were changed: a header line with the counts, then one JSON line per changed row and selector.

    Raises:
        AlignzooError: a resumed run has recorded another selection.
    """
    counts = [{key: value for key, value in one.items() if key != "facts"} for one in selected.summaries]
    text = "".join(f"{json.dumps(line)}\n" for line in ({"selectors": counts}, *selected.changes))
    path = folder / MANIFEST
    if not path.exists():
        write_text(path, text)
    elif path.read_text(encoding="utf-8") != text:
        raise AlignzooError(
            f"the selectors of this run chose other rows than {path} records",
            hint="restore the data, the files that selectors read and the plugins, or start a new run",
        )


def without_changes(selected: Selected) -> Selected:
    """The same without the entries per row, which only the record needs."""
    return replace(selected, changes=())
