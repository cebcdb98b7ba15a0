"""What differs between two runs: plan, data, environment, figures and cost."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from alignzoo.comparison.cost import training_seconds
from alignzoo.comparison.figures import figures_of
from alignzoo.records.run import RunRecord

_CLOCK = "step_seconds"
_HIDDEN = ("ranks",)
"""Of ``env.json``: hosts and processes of a launch."""


@dataclass(frozen=True)
class Fact:
    """A fact of both runs; None for a run that lacks it."""

    name: str
    first: Any
    second: Any

    @property
    def differs(self) -> bool:
        return bool(self.first != self.second)


@dataclass(frozen=True)
class RunDiff:
    """Two runs side by side.

    Attributes:
        sections: ``plan``, ``data``, ``environment``, ``metrics`` and ``cost``, each with all its facts.
    """

    sections: Mapping[str, tuple[Fact, ...]]

    @property
    def same_result(self) -> bool:
        """Whether both have finished with the same weights, figures and metrics, bit for bit."""
        metrics = self.sections["metrics"]
        finished = any(fact.name == "weights" and fact.first is not None for fact in metrics)
        return finished and not any(fact.differs for fact in metrics)

    def to_dict(self, *, everything: bool) -> dict[str, Any]:
        """JSON-able, by section and name.

        Args:
            everything: whether facts that both share are in it.
        """
        return {
            section: {
                fact.name: {"first": fact.first, "second": fact.second} for fact in facts if everything or fact.differs
            }
            for section, facts in self.sections.items()
        }


def diff(first: RunRecord, second: RunRecord) -> RunDiff:
    """Two runs side by side; either may be unfinished.

    Raises:
        DamagedError: a file of a run is not what was written.
    """
    return RunDiff(
        {
            "plan": _facts(first.values, second.values),
            "data": _facts(_flat(first.data), _flat(second.data)),
            "environment": _facts(_environment(first), _environment(second)),
            "metrics": (*_facts(_found(first), _found(second)), *_first_step_apart(first, second)),
            "cost": _facts(_cost(first), _cost(second)),
        }
    )


def _facts(first: Mapping[str, Any], second: Mapping[str, Any]) -> tuple[Fact, ...]:
    return tuple(Fact(name, first.get(name), second.get(name)) for name in {**first, **second})


def _flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested facts by their paths, as ``train.lengths.prompt.p50``."""
    flat: dict[str, Any] = {}
    for name, one in value.items():
        path = f"{prefix}{name}"
        flat |= _flat(one, f"{path}.") if isinstance(one, Mapping) else {path: one}
    return flat


def _environment(run: RunRecord) -> dict[str, Any]:
    facts = {name: value for name, value in run.environment.items() if name not in ("plugins", *_HIDDEN)}
    plugins = {
        f"{plugin.get('distribution')}:{plugin.get('entry_point')}": {
            "version": plugin.get("version"),
            "hash": plugin.get("hash"),
        }
        for plugin in run.environment.get("plugins") or ()
    }
    return _flat({**facts, "plugins": plugins})


def _found(run: RunRecord) -> dict[str, Any]:
    result = run.result
    if result is None:
        return {"status": "not finished", **figures_of(run)}
    return {
        "status": result.status,
        "steps": result.steps,
        "tokens": result.tokens,
        **{f"rows.{part}": count for part, count in result.pairs.items()},
        "training rows": result.train_identity or None,
        "weights": result.weights,
        **{f"before {name}": value for name, value in result.before.items()},
        **figures_of(run),
    }


def _cost(run: RunRecord) -> dict[str, Any]:
    result = run.result
    seconds = training_seconds(run)
    return {
        "training seconds": None if seconds is None else round(seconds, 4),
        "seconds": None if result is None else result.seconds,
        "peak memory": getattr(result, "peak_memory", None),
    }


def _first_step_apart(first: RunRecord, second: RunRecord) -> Iterator[Fact]:
    """The first line of metrics that differs in more than its time; nothing if none does."""
    for one, other in zip_longest(_timeless(first), _timeless(second)):
        if one != other:
            apart = [key for key in {**(one or {}), **(other or {})} if (one or {}).get(key) != (other or {}).get(key)]
            at = (one or other or {}).get("step")
            yield from (Fact(f"step {at} {key}", (one or {}).get(key), (other or {}).get(key)) for key in apart[:3])
            return


def _timeless(run: RunRecord) -> Iterable[dict[str, Any]]:
    return ({key: value for key, value in line.items() if key != _CLOCK} for line in run.metrics())
