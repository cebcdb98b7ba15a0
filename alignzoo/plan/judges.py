"""The judges of a run, and whether there is anything for them to judge."""

from __future__ import annotations

from alignzoo.contract.card import EvaluatorExtension
from alignzoo.errors import AlignzooError, UsageError
from alignzoo.plan.plan import Method, Plan


def is_function(method: Method) -> bool:
    """Whether a judge is a function for the evaluator of a run's data."""
    return bool(getattr(method.card, "function", False))


def unused_judges(plan: Plan, evaluator: EvaluatorExtension | None) -> list[AlignzooError]:
    """Judges without responses to judge: functions need the data's evaluator, the others a suite."""
    settings, problems = plan.settings, list[AlignzooError]()
    takes = evaluator is not None and evaluator.judge is not None
    functions = [method.card.name for method in plan.of("judge") if is_function(method)]
    others = [method.card.name for method in plan.of("judge") if not is_function(method)]
    if functions and not (takes and settings.samples):
        why = f"no answers are generated on --data {settings.data}"
        if evaluator is not None:
            why = f"the evaluator of --data {settings.data} takes no judge"
        if takes:
            why = "--no-samples leaves no answers to judge"
        problems.append(UsageError(f"--judge {functions[0]} has no effect here: {why}", hint="leave it out"))
    if len(functions) > 1:
        problems.append(
            UsageError(f"--judge {functions[0]} and --judge {functions[1]}: an evaluator takes one", hint="keep one")
        )
    if others and not settings.eval_suite:
        problems.append(
            UsageError(
                f"--judge {others[0]} has no effect here: this run generates no responses to judge",
                hint="add --eval-suite NAMES (`alignzoo suites` lists them), or judge afterwards: alignzoo eval RUN",
            )
        )
    return problems
