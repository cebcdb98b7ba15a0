"""What a run trained on: rows read, dropped and counted, label noise and selectors with their manifests."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path
from typing import Any

from alignzoo.records import RunRecord
from alignzoo_report.blocks import Details, Facts, Section, Table, Text
from alignzoo_report.words import plain

NOISE, SELECTION = "label_noise.jsonl", "selection.jsonl"
LINES = 50
"""Lines of a manifest that are shown."""
_POINTS = {"p5": "5 % up to", "p50": "median", "p95": "95 % up to", "max": "longest"}
_PARTS = {"train": "Training data", "eval": "Held-out data"}


def data_section(run: RunRecord) -> Section:
    """The section of a run, as far as it has read its data."""
    data = run.data
    if not data:
        return Section("data", "Data", [Text("The run has not read its data yet.")])
    blocks: list[Any] = []
    result = run.result
    if result is not None:
        counts = [(name.replace("_", " "), f"{count:,} rows") for name, count in result.pairs.items()]
        blocks.append(Facts([*counts, ("identity of the training rows", result.train_identity or "–")]))
    for name, part in data.items():
        if isinstance(part, dict) and "source" in part:
            blocks.append(_part(_PARTS.get(name, f"Data: {name}"), part))
    blocks += _noise(run.folder / NOISE)
    blocks += _selection(data.get("selection") or [], run.folder / SELECTION)
    return Section("data", "Data", blocks)


def _part(title: str, part: dict[str, Any]) -> Table:
    split = f" [{part['split']}]" if part.get("split") else ""
    rows = [("source", f"{part.get('source')}{split}"), ("layout", str(part.get("format")))]
    rows += [("rows read", f"{part['rows']:,}"), ("rows kept", f"{part.get('kept', part['rows']):,}")]
    rows += [(f"dropped: {reason}", f"{entry['count']:,}") for reason, entry in (part.get("dropped") or {}).items()]
    rows += [(f"counted: {what}", f"{count:,}") for what, count in (part.get("counted") or {}).items() if count]
    for text, sizes in (part.get("lengths") or {}).items():
        rows.append(
            (f"tokens of {text}", ", ".join(f"{_POINTS.get(point, point)} {size}" for point, size in sizes.items()))
        )
    rows += [("note", str(note)) for note in part.get("notes") or ()]
    return Table(title, ("what", "value"), rows)


def _noise(path: Path) -> list[Any]:
    lines = read_lines(path, LINES + 1)
    if not lines:
        return []
    head, rows = lines[0], lines[1:]
    text = (
        f"Label noise: {head.get('flipped', 0):,} of {head.get('n', 0):,} training rows have the opposite label (rate "
        f"{plain(head.get('rate'))}, seed {head.get('seed')}); held-out rows are untouched."
    )
    ids = ", ".join(str(row.get("row_id")) for row in rows)
    more = ", …" if head.get("flipped", 0) > len(rows) else ""
    return [Text(text), Details(f"Manifest: the flipped rows ({NOISE})", [Text(f"{ids}{more}")])]


def _selection(summaries: list[dict[str, Any]], path: Path) -> list[Any]:
    if not summaries:
        return []
    rows = [
        (
            str(one.get("selector")),
            f"{one.get('rows', 0):,}",
            f"{one.get('kept', 0):,}",
            f"{one.get('flipped', 0):,}",
            "; ".join(f"{reason}: {count:,}" for reason, count in (one.get("dropped") or {}).items()) or "–",
            plain(one.get("facts") or {}) or "–",
        )
        for one in summaries
    ]
    columns = ("selector", "rows", "kept", "flipped", "dropped", "figures")
    blocks: list[Any] = [Table("Selectors of training rows, in order", columns, rows, figures=(1, 2, 3))]
    changes = read_lines(path, LINES + 1)[1:]
    if changes:
        entries = [(str(one.get("row_id")), str(one.get("selector")), _change(one)) for one in changes]
        table = Table(f"The first {len(entries)} changed rows", ("row", "selector", "change"), entries)
        blocks.append(Details(f"Manifest: the changed rows ({SELECTION})", [table]))
    return blocks


def _change(line: dict[str, Any]) -> str:
    return plain({key: value for key, value in line.items() if key not in ("row_id", "selector")})


def read_lines(path: Path, most: int | None = None) -> list[dict[str, Any]]:
    """The objects of a file of JSON lines; what is missing or damaged is left out."""
    if not path.is_file():
        return []
    found = []
    with path.open(encoding="utf-8", errors="replace") as lines:
        for text in islice(lines, most):
            try:
                line = json.loads(text)
            except ValueError:
                continue
            if isinstance(line, dict):
                found.append(line)
    return found
