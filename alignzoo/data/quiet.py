"""Silences ``datasets``: its bars and log lines would bury ours, and its errors reach the user through ours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet_datasets(*, bars: bool = False) -> Iterator[None]:
    """Within the block ``datasets`` and ``huggingface_hub`` log nothing, and draw no progress bar unless ``bars``."""
    import datasets
    from huggingface_hub.utils import logging as hub_logging

    had_bars = not datasets.are_progress_bars_disabled()
    level, hub_level = datasets.logging.get_verbosity(), hub_logging.get_verbosity()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)
    hub_logging.set_verbosity(hub_logging.CRITICAL)
    if not bars:
        datasets.disable_progress_bars()
    try:
        yield
    finally:
        datasets.logging.set_verbosity(level)
        hub_logging.set_verbosity(hub_level)
        if had_bars:
            datasets.enable_progress_bars()
