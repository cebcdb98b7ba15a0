"""Compares runs over seeds, and shows what differs between two."""

from alignzoo.plugin import Extension, hookimpl


@hookimpl
def alignzoo_commands() -> list[Extension]:
    """``alignzoo compare`` and ``alignzoo diff``."""
    return [
        Extension(
            kind="command",
            name="compare",
            target=f"{__name__}.compare_command:command",
            summary="Compare runs or a sweep over seeds: intervals, paired tests, cost, Pareto front.",
        ),
        Extension(
            kind="command",
            name="diff",
            target=f"{__name__}.diff_command:command",
            summary="Show what differs between two runs: plan, data, environment, metrics.",
        ),
    ]
