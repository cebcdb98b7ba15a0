"""Single rows and answers: largest losses, flipped labels against weights, answers that changed most."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from alignzoo.records import RunRecord
from alignzoo.runs.examples import EXAMPLES_FILE, similarity
from alignzoo_report.blocks import Details, Heading, Section, Sides, Table, Text
from alignzoo_report.charts import shown, strip
from alignzoo_report.data_section import read_lines

SAMPLES_FILE = "samples.jsonl"
MOST = 12
"""Rows or answers that are shown at once; the rest on request."""


def examples_section(run: RunRecord) -> Section:
    """The section of a run, as far as it has kept examples."""
    lines = read_lines(run.folder / EXAMPLES_FILE)
    rows = [line["row"] for line in lines if isinstance(line.get("row"), dict)]
    answers = [line["answer"] for line in lines if isinstance(line.get("answer"), dict)]
    blocks = [*_losses(rows), *_flips(rows), *_answers(answers or _sampled(run))]
    if not blocks:
        blocks = [Text("This run has kept no examples: it has not finished, or an older version started it.")]
    return Section("examples", "Examples", blocks)


def _losses(rows: Sequence[dict[str, Any]]) -> list[Any]:
    told = [row for row in sorted(rows, key=lambda row: -row["loss"]) if "prompt" in row]
    if not told:
        return []
    last = f"Of the last {len(rows):,} training rows, each at its last visit: the loss at the weights before that step."
    return [Heading("Largest losses"), Text(last), *_some([_row(row) for row in told[:20]], "rows")]


def _row(row: dict[str, Any]) -> Sides:
    weight = row.get("weight")
    facts = [f"loss {row['loss']:.3f}", f"row {row['row_id']}", f"step {row['step']}"]
    facts += [] if weight is None else [f"weight {weight:.3f}"]
    facts += ["label flipped on purpose"] if row.get("flipped") else []
    responses = row.get("responses") or []
    titles = ["preferred in training", "rejected in training"] if len(responses) == 2 else []
    titles = titles or [f"response {i + 1}" for i in range(len(responses))]
    return Sides(str(row["prompt"]), list(zip(titles, responses, strict=True)), ", ".join(facts))


def _flips(rows: Sequence[dict[str, Any]]) -> list[Any]:
    weighed = [row for row in rows if row.get("weight") is not None]
    flipped = [row["weight"] for row in weighed if row["flipped"]]
    clean = [row["weight"] for row in weighed if not row["flipped"]]
    if not flipped or not clean:
        return []
    found = separation(flipped, clean)
    text = (
        f"A flipped row counts {mean(flipped):.2f} on average, a clean one {mean(clean):.2f}, where 1 is what every "
        f"row counts without a wrapper. In {found:.0%} of pairs of a clean and a flipped row, the clean one counts "
        "more (50% would be chance)."
    )
    chart = strip(
        "weights", "Weights of clean and flipped rows", {"clean": clean, "flipped": flipped}, x="weight", rule=(1.0, "")
    )
    told = sorted((row for row in weighed if row["flipped"] and "prompt" in row), key=lambda row: -row["weight"])
    entries = [
        (str(row["row_id"]), f"{row['weight']:.3f}", f"{row['loss']:.3f}", str(row["prompt"])) for row in told[:MOST]
    ]
    table = Table("Flipped rows that counted most", ("row", "weight", "loss", "prompt"), entries, figures=(1, 2))
    return [Heading("Flipped labels against weights"), Text(text), chart, table]


def mean(values: Sequence[float]) -> float:
    """Their mean."""
    return sum(values) / len(values)


def separation(lower: Sequence[float], higher: Sequence[float]) -> float:
    """The share of pairs in which the second sample's value is the larger one, ties counting half."""
    import numpy as np

    ordered = np.sort(np.asarray(lower))
    below = np.searchsorted(ordered, higher, side="left")
    up_to = np.searchsorted(ordered, higher, side="right")
    return float((below + up_to).mean() / 2 / len(ordered))


def _sampled(run: RunRecord) -> list[dict[str, Any]]:
    """The answers of ``--show-samples``, first and last."""
    first: dict[str, str] = {}
    last: dict[str, str] = {}
    for line in read_lines(run.folder / SAMPLES_FILE):
        prompt, response = str(line.get("prompt")), str(line.get("response"))
        first.setdefault(prompt, response)
        last[prompt] = response
    pairs = [(prompt, first[prompt], last[prompt]) for prompt in first]
    found = [
        {"set": "held-out prompts", "prompt": prompt, "before": a, "after": b, "similarity": similarity(a, b)}
        for prompt, a, b in pairs
    ]
    return sorted(found, key=lambda one: one["similarity"])


def _answers(answers: Sequence[dict[str, Any]]) -> list[Any]:
    if not answers:
        return []
    sides = [
        Sides(
            str(one["prompt"]),
            [("before training", str(one["before"])), ("after training", str(one["after"]))],
            f"{one['set']}, {shown(one['similarity'])} of the words in common",
        )
        for one in answers
    ]
    return [Heading("Answers that changed most"), *_some(sides, "answers")]


def _some(blocks: Sequence[Any], what: str) -> list[Any]:
    if len(blocks) <= MOST // 2:
        return list(blocks)
    rest = blocks[MOST // 2 :]
    return [*blocks[: MOST // 2], Details(f"{len(rest)} more {what}", rest)]
