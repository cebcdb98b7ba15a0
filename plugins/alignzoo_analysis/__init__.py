"""Commands that analyse a model or a run: safety probe, neurons, and sharpness of the loss."""

from alignzoo.plugin import Extension, hookimpl


@hookimpl
def alignzoo_commands() -> list[Extension]:
    """``alignzoo probe`` and ``alignzoo sharpness``."""
    return [
        Extension(
            kind="command",
            name="probe",
            target="alignzoo_analysis.probe_command:command",
            summary="Train a safety probe, or compare two neuron selections.",
        ),
        Extension(
            kind="command",
            name="sharpness",
            target="alignzoo_analysis.sharpness_command:command",
            summary="Measure how fast the loss rises around a model's weights.",
        ),
    ]
