"""Which judges judge which suites."""

from __future__ import annotations

from collections.abc import Sequence

from alignzoo.contract.card import Composition
from alignzoo.errors import BrokenPluginError, UsageError
from alignzoo.evaluate.asked import Asked
from alignzoo.evaluate.verdicts.figures import judges_suite
from alignzoo.evaluate.verdicts.judging import judge_name, measures_of
from alignzoo.plan.judges import is_function
from alignzoo.plan.plan import Method
from alignzoo.plugin.build import build_options, class_of
from alignzoo.plugin.registry import registry

DEFAULT_JUDGE = "refusal"
"""Of suites that bring none: the share of requests that are not refused."""


def judges_of(asked: Sequence[Asked], chosen: Sequence[Method] = ()) -> dict[str, tuple[Method, list[Asked]]]:
    """The judges by name, each with the suites that it judges.

    Args:
        chosen: the judges that were asked for; none: each suite's own, or the refusal judge.

    Raises:
        UsageError: a chosen judge compares responses instead of judging them, or applies to none of the suites, or two
            are the same.
        BrokenPluginError: a judge cannot be imported.
    """
    found: dict[str, tuple[Method, list[Asked]]] = {}
    for method in chosen:
        check_judges_one(method)
        name, measures = judge_name(method), measures_of(method)
        if name in found:
            raise UsageError(f"judge {method.card.name!r} is given twice with the same options", hint="leave one out")
        applies = [one for one in asked if judges_suite(measures, one.suite.measures)]
        if asked and not applies:
            raise UsageError(
                f"judge {method.card.name!r} says whether a response is harmful, which does not apply to suites of "
                "harmless requests",
                hint="add a suite of harmful requests, or a judge of refusals: --judge refusal",
            )
        found[name] = (method, applies)
    for one in asked if not chosen else ():
        method = default_judge(one.suite.default_judge or DEFAULT_JUDGE)
        found.setdefault(judge_name(method), (method, []))[1].append(one)
    for method, _ in found.values():
        class_of(method.card)
    return found


def check_judges_one(method: Method) -> None:
    """Check that a judge judges a response by itself.

    Raises:
        UsageError: it compares two responses, or is a function for the evaluator of a run's data.
    """
    name = method.card.name
    if measures_of(method) == "preference":
        raise UsageError(
            f"judge {name!r} compares two responses and judges none alone",
            hint="use it with: alignzoo judge pairs A B",
        )
    if is_function(method):
        home = registry().plugin_of(method.card)
        others = [
            card.name
            for plugin, card in registry().entries("judge")
            if plugin is home and not getattr(card, "function", False)
        ]
        such = f", such as {' or '.join(others)}" if others else ""
        raise UsageError(
            f"judge {name!r} is only for the evaluator of a run's own data: alignzoo run --judge {name}",
            hint=f"use another one{such}; `alignzoo ls judge` lists them",
        )


def default_judge(name: str) -> Method:
    """The judge of that name, with its default options.

    Raises:
        UsageError: there is none.
    """
    card = registry().find("judge", name)
    if isinstance(card, Composition):
        raise BrokenPluginError(f"judge {name!r} is a composition", hint="fix its plugin")
    return Method(card, registry().plugin_of(card).distribution, build_options(card, {}))
