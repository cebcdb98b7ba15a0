"""A live view of runs and sweeps in the terminal."""

from alignzoo.plugin import Extension, hookimpl


@hookimpl
def alignzoo_commands() -> list[Extension]:
    """The command."""
    return [
        Extension(
            kind="command",
            name="watch",
            target=f"{__name__}.watch_command:command",
            summary="Watch a run or a sweep: curves, throughput, time left.",
        ),
    ]
