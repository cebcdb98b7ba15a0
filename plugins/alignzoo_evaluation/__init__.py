"""Commands that evaluate: suites and tasks, judges and their agreement."""

from alignzoo.plugin import Extension, hookimpl


@hookimpl
def alignzoo_commands() -> list[Extension]:
    """The commands."""
    return [
        Extension(
            kind="command",
            name="eval",
            target=f"{__name__}.eval_command:command",
            summary="Evaluate a model or run on suites of prompts and lm-eval tasks.",
        ),
        Extension(
            kind="command",
            name="judge",
            target=f"{__name__}.judge_command:command",
            summary="Judge responses, compare models, or measure a judge against human labels.",
        ),
        Extension(
            kind="command",
            name="suites",
            target=f"{__name__}.suites_command:command",
            summary="List the suites of prompts, and where to get their data.",
        ),
    ]
