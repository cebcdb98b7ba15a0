"""Suites of prompts, one lm-eval task file each, and jailbreaks."""

from pathlib import Path

from alignzoo.plugin import hookimpl


@hookimpl
def alignzoo_suites() -> list[Path]:
    """The task files."""
    return sorted((Path(__file__).parent / "suites").glob("*.yaml"))
