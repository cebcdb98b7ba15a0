"""A run's plan in words, and as one command."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from alignzoo.contract.kinds import KINDS
from alignzoo.errors import AlignzooError
from alignzoo.plan.started import stated_methods, stated_values
from alignzoo.plugin.registry import registry
from alignzoo.records import RunRecord
from alignzoo_report.blocks import Code, Facts, Note, Section, Table, Text

DEFAULT = "default"
_OWN = {"out"}
"""Settings that belong to this run alone."""


def plan_section(run: RunRecord) -> Section:
    """Methods with what they do, model, data and steps, and all values that are not defaults."""
    values, stated = run.values, stated_values(run.plan)
    rows = []
    for kind, methods in stated_methods(run.plan).items():
        for method in methods:
            options = ", ".join(f"{name} {plain(value['value'])}" for name, value in method["options"].items())
            does = summary(kind, method["name"])
            rows.append((KINDS[kind].phrase, method["name"], does, options or "–"))
    chosen = [
        (word, plain(entry["value"]), entry["from"])
        for word, entry in stated.items()
        if entry["from"] != DEFAULT and word not in _OWN and word not in ("model", "data")
    ]
    blocks: list[Any] = [
        Text(_sentence(run)),
        Facts([("model", plain(values.get("model"))), ("data", plain(values.get("data"))), ("seed", str(run.seed))]),
        Table("Methods", ("kind", "name", "what it does", "options"), rows),
    ]
    if chosen:
        blocks.append(Table("Values that are not defaults", ("setting", "value", "set by"), chosen))
    blocks += [Note(str(note), "info") for note in run.plan.get("notes") or ()]
    return Section("plan", "Plan", blocks)


def _sentence(run: RunRecord) -> str:
    values, methods = run.values, run.methods
    losses, geometry = " + ".join(methods["loss"]), [name for name in methods["geometry"] if name != "plain"]
    wrapped = f" under {' and '.join(methods['robust'])}" if methods["robust"] else ""
    where = f" and the geometry {' and '.join(geometry)}" if geometry else ""
    steps = values.get("max-steps")
    length = f"for {'at most ' if values.get('epochs') else ''}{steps:,} steps" if steps else "for whole passes"
    if not steps and values.get("epochs"):
        length = f"for {values['epochs']:g} passes"
    noise = values.get("label-noise")
    flips = f" {noise:.0%} of the training labels are flipped on purpose." if noise else ""
    size, rate = values.get("batch-size"), values.get("lr")
    return (
        f"The model {plain(values.get('model'))} is trained on the data {plain(values.get('data'))} with {losses}"
        f"{wrapped}{where}, {length} of {size} rows at a peak learning rate of {rate:g}.{flips}"
    )


def summary(kind: str, name: str) -> str:
    """What a method does, if its plugin is installed here."""
    try:
        return str(registry().find(kind, name).summary)
    except AlignzooError:
        return "(not installed here)"


def plain(value: Any) -> str:
    """A value of a plan as text."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(plain, value)) or "none"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {plain(one)}" for key, one in value.items())
    return str(value)


def command_of(run: RunRecord) -> str:
    """The command that repeats a run: its methods, and every value that is not a default."""
    words = ["alignzoo run"]
    words += [f"--{kind} {shlex.quote(name)}" for kind, names in run.methods.items() for name in names]
    for word, entry in stated_values(run.plan).items():
        if word not in _OWN and (entry["from"] != DEFAULT or word in ("model", "data", "seed")):
            words += flag(word, entry["value"])
    return " ".join(words)


def flag(word: str, value: Any) -> list[str]:
    """A value as a flag; none at all for a value that a command line cannot state."""
    if value is None:
        return []
    if isinstance(value, bool):
        return [f"--{word}" if value else f"--{_negated(word)}"]
    if isinstance(value, (list, tuple)):
        value = ",".join(map(str, value))
    return [f"--{word} {shlex.quote(repr(value) if isinstance(value, float) else str(value))}"]


def _negated(word: str) -> str:
    return f"no-{word}"


def reproduce_section(run: RunRecord) -> Section:
    """One command, and what must agree for the same bits."""
    result, notes = run.result, []
    notes.append(
        "The same seed, versions and kind of hardware give the same weights, bit for bit; elsewhere, results agree up "
        "to rounding."
    )
    if result is not None:
        notes.append(
            f"Weights of this run: {result.weights}. Training rows and labels: {result.train_identity or 'unknown'}."
        )
    return Section("reproduce", "Reproduce", [Code(command_of(run), "Command that repeats the run"), *map(Text, notes)])
