"""``alignzoo report``: a run or sweep as one HTML file."""

from alignzoo.plugin import Extension, hookimpl


@hookimpl
def alignzoo_commands() -> list[Extension]:
    """The command."""
    return [
        Extension(
            kind="command",
            name="report",
            target=f"{__name__}.report_command:command",
            summary="Write a run or sweep as one self-contained HTML file.",
        ),
    ]
