"""Where the data of a suite is, and how its rows become prompts."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from alignzoo.base.shown import shown
from alignzoo.base.suggest import suggest
from alignzoo.data.fields import kind_of
from alignzoo.errors import AlignzooError, BrokenPluginError, DataError
from alignzoo.evaluate.suites.suite import Loaded, Prompt
from alignzoo.evaluate.suites.suite_file import Columns, Source, SuiteFacts
from alignzoo.evaluate.suites.suite_rows import Row, file_rows, stem
from alignzoo.plugin.guard import guarded

FILE = "{file}"
"""In place of a column's name: the name of the row's file without its suffix."""


def load(name: str, facts: SuiteFacts, folders: Sequence[Path], seed: int) -> Loaded:
    """The prompts of the suite ``name`` from its first source that is there: local files, a function, the hub.

    Raises:
        DataError: nothing is there (what to fetch, and where to put it), or a row is malformed.
        BrokenPluginError: the function that makes the rows fails.
    """
    source, files = local_source(facts, folders) or (None, [])
    if source is None:
        source = next((one for one in facts.sources if one.function), None)
    if source is None:
        source = next((one for one in facts.sources if one.hub), None)
    if source is None:
        raise missing(name, facts)
    try:
        rows, origin = _rows_of(source, files, seed)
    except DataError as error:
        raise (missing(name, facts, error) if source.hub else error) from error
    collected = _Collected(facts, source)
    for place, row in rows:
        collected.add(place, row)
    return collected.loaded(name, origin)


def local_source(facts: SuiteFacts, folders: Sequence[Path]) -> tuple[Source, list[Path]] | None:
    """The first source with files in a folder, and its files in the order they are read; None if there is none."""
    for folder in folders:
        for source in facts.sources:
            files = _matching(folder, source.files)
            if files:
                return source, files
    return None


def _matching(folder: Path, patterns: Sequence[str]) -> list[Path]:
    """The files of some patterns, of one place: of the matches the least deep folder's, in order of name."""
    found = [path for pattern in patterns for path in folder.rglob(pattern) if path.is_file()]
    if not found:
        return []
    home = min({path.parent for path in found}, key=lambda place: (len(place.parts), str(place)))
    return sorted({path for path in found if path.parent == home})


def missing(name: str, facts: SuiteFacts, cause: DataError | None = None) -> DataError:
    """The error about data that is not there: what to fetch, its licence, and where to put it."""
    files = [pattern for source in facts.sources for pattern in source.files]
    dataset = next((source.dataset for source in facts.sources if source.hub), None)
    save_as = facts.save_as or (files[0] if files else None)
    ways = []
    if facts.fetch and save_as:
        ways.append(f"download {facts.fetch} to DIR/{save_as} and add --data-dir DIR")
    elif files:
        ways.append(f"put {' or '.join(files)} into a folder DIR and add --data-dir DIR")
    if dataset:
        ways.append(f"let it come from the hub: {dataset}{f' ({facts.gated})' if facts.gated else ''}")
    why = f": {cause.message}" if cause else ": not in --data-dir or $ALIGNZOO_DATA_DIR"
    return DataError(
        f"the data of suite {name!r} (licence: {facts.licence}) is not here{why}", hint="; or ".join(ways) or None
    )


def _rows_of(source: Source, files: Sequence[Path], seed: int) -> tuple[Iterator[tuple[str, Row]], str]:
    if files:
        names = ", ".join(str(path) for path in files)
        return _with_names(files), names
    if source.function is not None:
        return _made(source.function, source.arguments, seed), source.function
    from alignzoo.data.sources import load_rows

    dataset = str(source.dataset)
    rows = load_rows(dataset, split=source.split)
    return ((f"{dataset}, row {number}", row) for number, row in enumerate(rows)), f"{dataset}, split {source.split}"


def _with_names(files: Sequence[Path]) -> Iterator[tuple[str, Row]]:
    for path in files:
        for place, row in file_rows(path):
            yield place, {FILE: stem(path), **row}


def _made(function: str, arguments: Mapping[str, Any], seed: int) -> Iterator[tuple[str, Row]]:
    """The rows of a function."""
    import importlib

    module, _, name = function.partition(":")
    with guarded(
        f"the suite's function {function} failed",
        error=BrokenPluginError,
        hint="fix its plugin",
        passes=(AlignzooError,),
    ):
        rows = list(getattr(importlib.import_module(module), name)(**arguments, seed=seed))
    return ((f"{function}, row {number}", row) for number, row in enumerate(rows))


class _Collected:
    """Prompts, and what became of the other rows."""

    def __init__(self, facts: SuiteFacts, source: Source) -> None:
        self._facts = facts
        self._source = source
        self._columns = source.columns or facts.columns
        self._where = facts.where if source.where is None else source.where
        self._prompts: list[Prompt] = []
        self._ids: Counter[str] = Counter()
        self._requests: set[tuple[str, ...]] = set()
        self._counts: Counter[str] = Counter()

    def add(self, place: str, row: Row) -> None:
        """A row of the data."""
        self._counts["rows"] += 1
        if self._counts["rows"] == 1:
            _check_columns(place, row, self._columns, self._where)
        if not all(_meets(row.get(column), wanted) for column, wanted in self._where.items()):
            return
        request = _request(place, row, self._columns)
        if not request.strip():
            self._counts["empty"] += 1
            return
        context = _text(place, row, self._columns.context)
        text = self._facts.with_context.format(context=context, request=request) if context else request
        if (text,) in self._requests:
            self._counts["repeated"] += 1
            if self._facts.distinct:
                return
        self._requests.add((text,))
        self._prompts.append(
            Prompt(
                id=self._id(row, text),
                messages=({"role": "user", "content": text},),
                request=request,
                category=_category(row, self._columns.category),
                context=context,
                reference=_text(place, row, self._columns.reference),
                facts={column: row.get(column) for column in self._columns.facts},
            )
        )

    def _id(self, row: Row, text: str) -> str:
        given = row.get(self._columns.id) if self._columns.id else None
        number = f"{self._counts['rows']}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
        name = str(given) if given not in (None, "") else number
        self._ids[name] += 1
        if self._ids[name] > 1:
            self._counts["ids"] += given not in (None, "")
            name = f"{name}-{self._ids[name]}"
        return name

    def loaded(self, name: str, origin: str) -> Loaded:
        """The prompts with what must be said of them."""
        if not self._prompts:
            raise DataError(f"{origin}: no prompt for suite {name!r} in {self._counts['rows']} rows")
        return Loaded(self._prompts, origin, tuple(self._notes()))

    def _notes(self) -> Iterator[str]:
        whole, here = self._facts.prompts, len(self._prompts)
        if self._source.note:
            yield self._source.note
        if whole is not None and here != whole:
            yield f"{here:,} prompts here; the publisher's whole set has {whole:,}"
        if self._counts["empty"]:
            yield f"{self._counts['empty']:,} rows without a prompt are left out"
        if self._counts["repeated"]:
            what = "left out" if self._facts.distinct else "kept"
            yield f"repeated prompts: {self._counts['repeated']:,} ({what})"
        if self._counts["ids"]:
            yield f"{self._counts['ids']:,} ids occur more than once; the later ones are numbered"


def _check_columns(place: str, row: Row, columns: Columns, where: Mapping[str, Any]) -> None:
    named = [columns.request, columns.id, columns.category, columns.context, columns.reference]
    for column in dict.fromkeys([*named, *columns.facts, *where]):
        if column is not None and column not in row:
            known = [name for name in row if name != FILE]
            raise DataError(
                f"{place}: no column {column!r}",
                hint=suggest(column, known) or f"it has: {', '.join(known)}; is this the publisher's file?",
            )


def _meets(value: Any, wanted: Any) -> bool:
    if isinstance(wanted, dict):
        return not _meets(value, wanted.get("not"))
    accepted = wanted if isinstance(wanted, list) else [wanted]
    return _plain(value) in [_plain(one) for one in accepted]


def _plain(value: Any) -> str:
    """A value as a csv file has it."""
    return "" if value is None else str(value).strip().casefold()


def _request(place: str, row: Row, columns: Columns) -> str:
    value = row.get(columns.request)
    if columns.holds == "list" and isinstance(value, (list, tuple)):
        value = value[0] if value else None
    if value is None:
        return ""
    if not isinstance(value, str):
        raise DataError(f"{place}: column {columns.request!r} is {kind_of(value)}, expected text")
    _check_unicode(place, columns.request, value)
    return _first_turn(place, value) if columns.holds == "transcript" else value


def _first_turn(place: str, transcript: str) -> str:
    """The first human turn of a transcript in the format of HH-RLHF."""
    _, human, rest = f"\n\n{transcript.lstrip()}".partition("\n\nHuman:")
    if not human:
        raise DataError(f"{place}: no human turn in the transcript {shown(transcript[:40])}")
    return rest.partition("\n\nAssistant:")[0].strip()


def _text(place: str, row: Row, column: str | None) -> str | None:
    value = row.get(column) if column else None
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise DataError(f"{place}: column {column!r} is {kind_of(value)}, expected text")
    _check_unicode(place, str(column), value)
    return value


def _check_unicode(place: str, column: str, text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise DataError(
            f"{place}: column {column!r} has half of a surrogate pair, which is not valid Unicode"
        ) from error


def _category(row: Row, column: str | None) -> str | None:
    value = row.get(column) if column else None
    if isinstance(value, Mapping):
        value = next((name for name, flag in value.items() if flag is True), None)
    if isinstance(value, (list, tuple)):
        value = value[0] if value else None
    return None if value is None or value == "" else str(value)
