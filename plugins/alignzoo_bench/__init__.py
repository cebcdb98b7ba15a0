"""The standing comparison of methods in an embedded world: ``alignzoo bench``."""

from alignzoo.plugin import Extension, hookimpl


@hookimpl
def alignzoo_commands() -> list[Extension]:
    """The command."""
    return [
        Extension(
            kind="command",
            name="bench",
            target=f"{__name__}.bench_command:command",
            summary="Compare all methods in an embedded world over seeds and label noise; resumable.",
        )
    ]
