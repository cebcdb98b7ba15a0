"""The command ``sweep``: one recipe over a grid of methods, options and seeds."""

from alignzoo.plugin import Extension, hookimpl


@hookimpl
def alignzoo_commands() -> list[Extension]:
    """The command."""
    return [
        Extension(
            kind="command",
            name="sweep",
            target=f"{__name__}.sweep_command:command",
            summary="Run a recipe over a grid of methods, options and seeds; resumable.",
        )
    ]
