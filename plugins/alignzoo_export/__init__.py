"""Export a run: merged weights, GGUF, a model card."""

from alignzoo.plugin import Extension, hookimpl


@hookimpl
def alignzoo_commands() -> list[Extension]:
    """The commands."""
    return [
        Extension(
            kind="command",
            name="export",
            target=f"{__name__}.export_command:command",
            summary="Export a run: merged weights, GGUF, Ollama Modelfile, model card.",
        ),
    ]
