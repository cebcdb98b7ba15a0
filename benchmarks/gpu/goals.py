"""What the check aims at, beside what it measured; and the page that shows both.

A goal that is missed is a result. That both sides did the same work is not a goal but a condition: without it the check
fails.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BEGIN, END = "<!-- gpu -->", "<!-- end gpu -->"
SAME = {"cpu": 1e-4, "gpu": 5e-3}
"""Largest difference of the first step's mean log-probs, relative: fp32 and bf16."""
Found = Mapping[str, Mapping[str, Any]]
"""The figures of each part."""


@dataclass(frozen=True)
class Goal:
    """``value`` reads a figure; ``bound`` is None for one without a goal."""

    about: str
    value: Callable[[Found], float]
    sign: str = ""
    bound: float | None = None
    percent: bool = False

    def row(self, found: Found, *, judged: bool) -> tuple[str, str, str, str]:
        """About, measured, goal, and whether that held."""
        goal = "" if self.bound is None else f"{self.sign} {self._shown(self.bound)}"
        try:
            value = float(self.value(found))
        except (KeyError, TypeError, ZeroDivisionError):  # no such part, or a card whose peak is not known
            return self.about, "not measured", goal, ""
        if self.bound is None or not judged:
            return self.about, self._shown(value), goal, ""
        held = value >= self.bound if self.sign == "≥" else value <= self.bound
        return self.about, self._shown(value), goal, "held" if held else "missed"

    def _shown(self, value: float) -> str:
        return f"{100 * value:.0f} %" if self.percent else f"{value:.2f}×"


def _beside(one: tuple[str, str], other: tuple[str, str], what: str) -> Callable[[Found], float]:
    """A figure of one measurement over the same of another, each by part and name."""
    return lambda found: float(found[one[0]][one[1]][what] / found[other[0]][other[1]][what])


def _against_trl() -> Iterator[Goal]:
    for shape, name in COMPARED:
        sides = (f"{shape}-alignzoo", name), (f"{shape}-trl", name)
        about = f"{shape.upper()}, {name.replace('+', ', ')}"
        faster = 1.3 if name.startswith("dialogues") else 2.0
        yield Goal(f"{about}: unique tokens/s over TRL's", _beside(*sides, "tokens_per_second"), "≥", faster)
        yield Goal(f"{about}: peak memory over TRL's", _beside(*sides, "peak"), "≤", 0.9)


def _foretold(shape: str, name: str) -> Goal:
    def error(found: Found) -> float:
        predicted = found["plan"]["found"][f"{shape} {name}"]["tensors"]
        return abs(float(predicted / found[f"{shape}-alignzoo"][name]["peak"]) - 1)

    about = f"{shape.upper()}, {name.replace('+', ', ')}: peak, error of `alignzoo plan`"
    return Goal(about, error, "≤", 0.15, percent=True)


COMPARED = (
    ("1b", "dialogues"),
    ("1b", "dialogues+checkpointing"),
    ("1b", "long"),
    ("1b", "long+checkpointing"),
    ("8b", "dialogues+checkpointing"),
    ("8b", "long+checkpointing"),
)
"""Measurements of both sides."""
_ROWS, _COMPILED = ("1b-alignzoo", "rows"), ("1b-settings", "rows+compile")
_LONG, _OFFLOADED = ("1b-alignzoo", "long"), ("1b-settings", "long+offloading")
_PADDED, _DIALOGUES = ("1b-settings", "dialogues+padded"), ("1b-alignzoo", "dialogues")
_NARROW, _WIDE = ("8b-alignzoo", "dialogues+checkpointing"), ("8b-weights", "dialogues+checkpointing+fp32-weights")
GOALS = (
    *_against_trl(),
    Goal("1B, packed rows of 8k: share of the dense bf16 peak", lambda f: f[_ROWS[0]]["rows"]["share"], "≥", 0.4, True),
    Goal(
        "1B, packed rows of 8k: share of a large bf16 product",
        lambda f: f[_ROWS[0]]["rows"]["flops"] / f["profile"]["product"],
        percent=True,
    ),
    Goal("ShaPO at interval 5 over plain, time", lambda f: f["geometry"]["ratios"]["shapo-token"], "≤", 1.12),
    Goal("`sam` over plain, time", lambda f: f["geometry"]["ratios"]["sam"], "≤", 2.1),
    *(_foretold(shape, name) for shape, name in (*COMPARED[:1], COMPARED[2], ("1b", "rows"), *COMPARED[4:])),
    Goal("`--compile`: tokens/s over those without", _beside(_COMPILED, _ROWS, "tokens_per_second")),
    Goal("`--activation-offloading`: tokens/s", _beside(_OFFLOADED, _LONG, "tokens_per_second")),
    Goal("`--activation-offloading`: peak memory", _beside(_OFFLOADED, _LONG, "peak")),
    Goal("frozen weights in bf16 over fp32: tokens/s", _beside(_NARROW, _WIDE, "tokens_per_second")),
    Goal("frozen weights in bf16 over fp32: peak memory", _beside(_NARROW, _WIDE, "peak")),
    Goal("packed over padded: tokens/s", _beside(_DIALOGUES, _PADDED, "tokens_per_second")),
    Goal(
        "error of a log-prob in bf16, over that of bf16 logits",
        lambda f: f["precision"]["ours"] / f["precision"]["logits"],
    ),
)


def different_work(found: Found, *, cpu: bool) -> list[str]:
    """Measurements in which alignzoo and TRL did not do the same work: the log-probs of their first steps differ, or
    their first loss is not that of a policy that equals its reference."""
    problems = []
    for shape, name in COMPARED:
        try:
            ours, theirs = (found[f"{shape}-{side}"][name] for side in ("alignzoo", "trl"))
            heads = [side[what][0] for what in ("chosen", "rejected") for side in (ours, theirs)]
            losses = [side["losses"][0] for side in (ours, theirs)]
        except (KeyError, IndexError):  # not measured, or it failed
            continue
        tolerance = SAME["cpu" if cpu else "gpu"]
        same = all(math.isclose(a, b, rel_tol=tolerance) for a, b in zip(heads[::2], heads[1::2], strict=True))
        if not same or not all(math.isclose(loss, math.log(2), rel_tol=0.02) for loss in losses):
            problems.append(f"{shape} {name}: log-probs {heads}, losses {losses}")
    return problems


def goals_table(found: Found, *, judged: bool) -> str:
    """Every goal as Markdown."""
    return markdown(("measured", "", "goal", ""), [goal.row(found, judged=judged) for goal in GOALS])


def parts_table(parts: Sequence[Mapping[str, Any]]) -> str:
    """The outcomes as Markdown."""
    rows = [
        (part["part"], part["status"], f"{part['seconds']:.0f}", part["figures"].get("shown") or part["about"])
        for part in parts
    ]
    return markdown(("part", "outcome", "s", "figures"), rows)


def markdown(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table."""
    return "\n".join(f"| {' | '.join(row)} |" for row in (heads, ["---"] * len(heads), *rows))


def summary(content: Mapping[str, Any]) -> str:
    """Everything in a check's file as Markdown: where, goals, parts, and the tables of the parts that have some."""
    found = {part["part"]: part["figures"] for part in content["parts"]}
    versions = ", ".join(f"{name} {number}" for name, number in content["versions"].items() if number)
    where = f"{content['date']}; {content['card']}; Python {content['python']}, {versions}; commit {content['commit']}."
    lines = [where, "", goals_table(found, judged=not content["cpu"]), "", parts_table(content["parts"])]
    for name, about in (("head", "The LM head"), ("attention", "Attention")):
        if found.get(name, {}).get("table"):
            lines += ["", f"{about} (`benchmarks/{name}.py`):", "", *found[name]["table"]]
    top = found.get("profile", {}).get("top", {})
    if top:
        rows = [(f"`{name}`", f"{1000 * seconds:.1f}") for name, seconds in top.items()]
        lines += ["", "One step of packed rows, by operation:", "", markdown(("operation", "ms"), rows)]
    return "\n".join(lines)


def write(content: Mapping[str, Any], page: Path) -> None:
    """Put a check's results into a page, in the place of what is between the marks.

    Raises:
        SystemExit: it is no check of a GPU, or the page has no marks.
    """
    if content["cpu"]:
        raise SystemExit("these results are from tiny sizes on a CPU: nothing to write")
    before = page.read_text()
    if BEGIN not in before or END not in before.split(BEGIN, 1)[1]:
        raise SystemExit(f"{page} has no {BEGIN} and {END} to write between")
    head, rest = before.split(BEGIN, 1)
    page.write_text(f"{head}{BEGIN}\n\n{summary(content)}\n\n{END}{rest.split(END, 1)[1]}")
