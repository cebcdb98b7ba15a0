"""``alignzoo plan``: estimates memory, work and time of a run from shapes alone."""

from alignzoo.plugin import Extension, hookimpl


@hookimpl
def alignzoo_commands() -> list[Extension]:
    """``alignzoo plan``."""
    return [
        Extension(
            kind="command",
            name="plan",
            target="alignzoo_estimate.plan_command:command",
            summary="Say what a run would take: parameters, memory by part, work and time; and what to change "
            "if it does not fit.",
        )
    ]
