"""Curves of a run from ``metrics.jsonl``, thinned out to what a chart can show."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from alignzoo.records import RunRecord
from alignzoo_report.blocks import Chart, Charts, Details, Note, Section, Text
from alignzoo_report.line_chart import Line, Point, lines

POINTS = 160
"""Most points of a curve; where there are more steps, each point is the mean of several."""
SURVIVES = 0.9
"""Below this share of a perturbation that reaches the forward pass, a run warns."""
EVERY_STEP, HELD_OUT = "training", "held-out"


@dataclass(frozen=True)
class Curves:
    """Everything that a run logged, by name, as ``(step, value)``.

    Attributes:
        start: the figures before training, drawn at step 0.
        end: the figures at the end.
    """

    logged: Mapping[str, Sequence[Point]]
    start: Mapping[str, float] = field(default_factory=dict)
    end: Mapping[str, float] = field(default_factory=dict)

    @property
    def steps(self) -> int:
        """The last step with a line."""
        return max((int(points[-1][0]) for points in self.logged.values() if points), default=0)

    def of(self, name: str) -> list[Point]:
        """A curve of training steps, thinned out."""
        return thinned(self.logged.get(name, ()))

    def held_out(self, name: str) -> list[Point]:
        """A figure on held-out rows at each evaluation, before and after training included."""
        key = f"eval/{name}"
        points = dict(self.logged.get(key, ()))
        if key in self.start:
            points = {0: self.start[key], **points}
        if key in self.end:
            points[max(self.steps, 1)] = self.end[key]
        return sorted(points.items()) if len(points) > 1 else []


def curves_of(run: RunRecord) -> Curves:
    """The curves of a run, as far as it has come."""
    logged: dict[str, list[Point]] = {}
    for line in run.metrics():
        step = line.get("step")
        if not isinstance(step, (int, float)):
            continue
        for name, value in line.items():
            if name != "step" and isinstance(value, (int, float)) and value == value and abs(value) < float("inf"):
                logged.setdefault(name, []).append((step, float(value)))
    result = run.result
    return Curves(logged, result.before if result else {}, result.after if result else {})


def thinned(points: Sequence[Point], most: int = POINTS) -> list[Point]:
    """At most so many points: the means over equal spans of steps."""
    if len(points) <= most:
        return list(points)
    span = -(-len(points) // most)
    chunks = [points[start : start + span] for start in range(0, len(points), span)]
    return [(chunk[-1][0], sum(value for _, value in chunk) / len(chunk)) for chunk in chunks]


def displacement(start: Mapping[str, float], end: Mapping[str, float]) -> str | None:
    """A warning if chosen responses became less likely together with rejected ones."""
    names = ("eval/logps/chosen", "eval/logps/rejected")
    if not all(name in start and name in end for name in names):
        return None
    chosen, rejected = (end[name] - start[name] for name in names)
    if not (chosen < 0 and rejected < 0 and -chosen > 0.01 * abs(start[names[0]])):
        return None
    return (
        f"Likelihood displacement: on held-out pairs, chosen responses lost {-chosen:.2f} nats on average and rejected "
        f"ones {-rejected:.2f}. The model prefers chosen responses by making both less likely; the lost probability "
        "goes to other responses."
    )


def curves_section(run: RunRecord) -> Section:
    """Loss, margins, log-probs, rewards, sharpness and survival, then whatever else was logged."""
    curves = curves_of(run)
    if not curves.logged:
        return Section("curves", "Training", [Text("No step has been logged yet.")])
    blocks: list[Any] = []
    warning = displacement(curves.start, curves.end)
    if warning:
        blocks.append(Note(warning))
    most = max(map(len, curves.logged.values()))
    if most > POINTS:
        blocks.append(Text(f"Each point is the mean over {-(-most // POINTS)} steps."))
    main = list(_main(curves))
    blocks.append(Charts(main))
    known = {name for names in _MAIN for name in names} | {"tokens", "total_tokens", "step_seconds"}
    rest = [name for name in curves.logged if not name.startswith("eval/") and name not in known]
    more = [lines(f"more-{i}", name, [Line(name, curves.of(name))]) for i, name in enumerate(rest)]
    if more:
        blocks.append(Details(f"{len(more)} more curves", [Charts(more)]))
    return Section("curves", "Training", blocks)


_MAIN: dict[tuple[str, ...], tuple[str, str]] = {
    ("loss",): ("Loss", "objective"),
    ("rewards/margins",): ("Reward margin", "chosen − rejected"),
    ("rewards/accuracies",): ("Preference accuracy", "share of pairs"),
    ("logps/chosen", "logps/rejected"): ("Log-probs of both responses", "nats per response"),
    ("rewards/chosen", "rewards/rejected"): ("Implicit rewards", "reward"),
    ("geometry/sharpness_gap",): ("Sharpness gap", "loss rise"),
    ("geometry/survival",): ("Survival of the perturbation", "share"),
    ("robust/effective_pairs",): ("Effective pairs per step", "pairs"),
    ("grad_norm",): ("Gradient norm before clipping", "norm"),
}


def _main(curves: Curves) -> Iterable[Chart]:
    for names, (title, unit) in _MAIN.items():
        series = []
        for i, name in enumerate(names):
            side = f"{name.rpartition('/')[2]}, " if len(names) > 1 else ""
            for kind, points, sparse in ((EVERY_STEP, curves.of(name), False), (HELD_OUT, curves.held_out(name), True)):
                if points:
                    colour = i if len(names) > 1 else None
                    series.append(Line(f"{side}{kind}", points, sparse, colour))
        if series:
            rule = (SURVIVES, "") if names == ("geometry/survival",) else None
            note = f"Dashed at {SURVIVES}: below it, rounding swallows part of the radius." if rule else ""
            yield lines(names[0].replace("/", "-"), title, series, y=unit, rule=rule, note=note)
