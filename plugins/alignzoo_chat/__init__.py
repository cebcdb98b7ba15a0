"""Talk to a model, or generate responses to a file of prompts."""

from alignzoo.plugin import Extension, hookimpl


@hookimpl
def alignzoo_commands() -> list[Extension]:
    """The commands."""
    return [
        Extension(
            kind="command",
            name="chat",
            target=f"{__name__}.chat_command:command",
            summary="Talk to a model or run, beside its base if asked for.",
        ),
        Extension(
            kind="command",
            name="generate",
            target=f"{__name__}.generate_command:command",
            summary="Generate responses to a file of prompts.",
        ),
    ]
