"""The parts of the pages on interfaces, hooks and the contract that are written from the code: block name -> lines."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from skeletons import attributes_of, class_skeleton, methods_of, prose, signature_of

from alignzoo import interfaces
from alignzoo.cli.compat import NEEDS
from alignzoo.contract.card import PROVIDED
from alignzoo.contract.kinds import KINDS
from alignzoo.contract.method import Method
from alignzoo.contract.scoring import Response, RewardContext
from alignzoo.data.formats import Layout
from alignzoo.interfaces import DataSource, EvaluationContext, Evaluator
from alignzoo.observers import RunObserver
from alignzoo.plugin import hookspecs
from alignzoo.plugin.declared import HOOKS
from alignzoo.testing import RULES


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table."""
    return [
        f"| {' | '.join(columns)} |",
        f"| {' | '.join('---' for _ in columns)} |",
        *(f"| {' | '.join(row)} |" for row in rows),
    ]


def cell(text: str) -> str:
    """A cell's text; a dash where there is none."""
    return escaped(text).replace("|", "\\|") or "–"


def escaped(text: str) -> str:
    """Text that no Markdown reader takes for a tag; code between backticks stays as it is."""
    return "`".join(part if i % 2 else re.sub(r"<(?=[\w/!?])", "&lt;", part) for i, part in enumerate(text.split("`")))


def needs_table() -> list[str]:
    """What a card may ask for, and whether the core has it."""
    rows = [(f"`{need}`", cell(words), "yes" if need in PROVIDED else "no") for need, words in NEEDS.items()]
    return table(("need", "what it is", "supplied"), rows)


def kinds_table() -> list[str]:
    """The kinds of methods, as the table of kinds has them."""
    rows = [
        (f"`--{kind.name}`", f"`{kind.base.__name__}`", f"`{kind.card.__name__}`", kind.multiplicity, cell(kind.stage))
        for kind in KINDS.values()
    ]
    return table(("kind", "class", "card", "a run has", "called in"), rows)


def facts_table() -> list[str]:
    """The facts specific to the cards of one kind."""
    rows = []
    for kind in KINDS.values():
        meanings = attributes_of(kind.card)
        for name in kind.facts:
            default = kind.card.model_fields[name].default
            shown = (
                {True: "yes", False: "no"}.get(default, f"`{default}`") if isinstance(default, (bool, str)) else None
            )
            rows.append((kind.name, f"`{name}`", shown or _default(default), cell(meanings[name])))
    return table(("kind", "field", "default", "meaning"), rows)


def _default(value: object) -> str:
    return ", ".join(f"`{one}`" for one in sorted(value)) if isinstance(value, frozenset) else str(value)


def interface_blocks() -> dict[str, list[str]]:
    """The interfaces of ``alignzoo.interfaces``: block name -> lines."""
    return {
        "kinds": kinds_table(),
        "facts": facts_table(),
        **{kind.name: class_skeleton(kind.base) for kind in KINDS.values()},
        "response": class_skeleton(Response),
        "reward-context": class_skeleton(RewardContext),
        "selection": class_skeleton(interfaces.Selection),
        "judge": class_skeleton(interfaces.Judge),
        "answered": class_skeleton(interfaces.Answered),
        "verdict": class_skeleton(interfaces.Verdict),
        "preference": class_skeleton(interfaces.Preference),
        "judge-context": class_skeleton(interfaces.JudgeContext),
        "selection-context": class_skeleton(interfaces.SelectionContext),
        "selection-model": class_skeleton(interfaces.SelectionModel),
        "step-loss": class_skeleton(interfaces.StepLoss),
        "method": methods_of(Method),
        "needs": needs_table(),
    }


def hook_blocks() -> dict[str, list[str]]:
    """Every hook with its exact signature and meaning, and the classes that extensions name: block name -> lines."""
    hooks = {
        name: ["```python", signature_of(getattr(hookspecs, name)), "```", "", *prose(getattr(hookspecs, name))]
        for name in HOOKS
    }
    classes = {
        "observer": RunObserver,
        "layout": Layout,
        "source": DataSource,
        "evaluator": Evaluator,
        "evaluation": EvaluationContext,
    }
    return {**hooks, **{name: class_skeleton(one) for name, one in classes.items()}}


def rule_tables() -> dict[str, list[str]]:
    """The contract's rules: those that all kinds share, and those of each kind."""
    names = {kind: {rule.name: rule.summary for rule in rules} for kind, rules in RULES.items()}
    shared = [name for name in names["loss"] if len({rules.get(name) for rules in names.values()}) == 1]
    columns = ("rule", "what is kept")
    by_kind: list[str] = []
    for kind, rules in names.items():
        own = [(f"`{name}`", cell(text)) for name, text in rules.items() if name not in shared]
        by_kind += [*([""] if by_kind else []), f"### For {KINDS[kind].title.lower()}", "", *table(columns, own)]
    return {"all": table(columns, [(f"`{name}`", cell(names["loss"][name])) for name in shared]), "kinds": by_kind}
