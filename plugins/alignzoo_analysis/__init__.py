"""Commands that look into a model or a run: its safety probe and neurons, and the loss around its weights."""

from alignzoo.plugin import Extension, hookimpl


@hookimpl
def alignzoo_commands() -> list[Extension]:
    """``alignzoo probe`` and ``alignzoo sharpness``."""
    return [
        Extension(
            kind="command",
            name="probe",
            target="alignzoo_analysis.probe_command:command",
            summary="Train a safety probe on hidden states, or compare two selections of neurons.",
        ),
        Extension(
            kind="command",
            name="sharpness",
            target="alignzoo_analysis.sharpness_command:command",
            summary="Measure how fast the loss rises around a model's weights, or around those of a run.",
        ),
    ]
