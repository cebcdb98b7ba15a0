"""Named lists of lm-eval tasks that measure what a model can do: ``alignzoo eval --tasks capability``."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class CapabilityTask:
    """A task of a group.

    Attributes:
        name: lm-eval's name.
        fewshot: examples in the prompt; None leaves it to the task.
        metric: the figure that stands for the task, as lm-eval names it (``METRIC,FILTER``).
    """

    name: str
    fewshot: int | None
    metric: str


@dataclass(frozen=True)
class CapabilityGroup:
    """Tasks under one name.

    Attributes:
        name: what ``--tasks`` takes.
        summary: one line about it.
        tasks: in order.
    """

    name: str
    summary: str
    tasks: tuple[CapabilityTask, ...]


_GROUPS = (
    CapabilityGroup(
        "capability",
        # The few-shot examples of the Open LLM Leaderboard (2023), the usual ones; IFEval has none.
        "knowledge, reasoning, arithmetic, truthfulness and instructions; for models of about 1B parameters or more",
        (
            CapabilityTask("mmlu", 5, "acc,none"),
            CapabilityTask("gsm8k", 5, "exact_match,strict-match"),
            CapabilityTask("ifeval", 0, "prompt_level_strict_acc,none"),
            CapabilityTask("truthfulqa_mc2", 0, "acc,none"),
            CapabilityTask("arc_challenge", 25, "acc_norm,none"),
            CapabilityTask("hellaswag", 10, "acc_norm,none"),
            CapabilityTask("winogrande", 5, "acc,none"),
        ),
    ),
    CapabilityGroup(
        "capability-small",
        "multiple choice and last words, without examples; for models too small to solve the tasks of capability",
        (
            CapabilityTask("arc_easy", 0, "acc_norm,none"),
            CapabilityTask("hellaswag", 0, "acc_norm,none"),
            CapabilityTask("piqa", 0, "acc_norm,none"),
            CapabilityTask("sciq", 0, "acc_norm,none"),
            CapabilityTask("lambada_openai", 0, "acc,none"),
            CapabilityTask("winogrande", 0, "acc,none"),
        ),
    ),
)
GROUPS = {group.name: group for group in _GROUPS}
_HEADLINES = {task.name: task.metric for group in _GROUPS for task in group.tasks}


def headline(task: str, metrics: list[str]) -> str | None:
    """The figure that stands for a task among its metrics; None if it has none."""
    preferred = (_HEADLINES.get(task), *(f"{name},none" for name in ("acc_norm", "acc", "exact_match")))
    return next((name for name in preferred if name in metrics), metrics[0] if metrics else None)
