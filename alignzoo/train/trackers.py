"""Trackers of experiments: started through accelerate, with their files in the run folder where they take one."""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignzoo.errors import AlignzooError

if TYPE_CHECKING:
    from accelerate import Accelerator

PROJECT = "alignzoo"
OFFLINE = {
    "wandb": "set WANDB_MODE=offline to write to the run folder only, or log in with `wandb login`",
    "swanlab": "set SWANLAB_MODE=offline to write to the run folder only, or log in with `swanlab login`",
    "mlflow": "check MLFLOW_TRACKING_URI; without it mlflow writes to the run folder",
}
"""What to do where a tracker does not start."""


def start_trackers(
    accelerator: Accelerator, names: Sequence[str], folder: Path, config: Mapping[str, Any], project: str = PROJECT
) -> None:
    """Start the trackers of a run, on every rank, and give them its settings.

    Raises:
        AlignzooError: one does not start, for example because nobody is logged in.
    """
    try:
        if "mlflow" in names and accelerator.is_main_process:
            _store_of_mlflow(folder)
        accelerator.init_trackers(project, config=dict(config), init_kwargs=options_of(names, folder))
    except Exception as error:
        hints = [OFFLINE[name] for name in names if name in OFFLINE]
        raise AlignzooError(
            f"--track {','.join(names)}: a tracker did not start: {type(error).__name__}: {error}",
            hint="; ".join(hints) or "check the tracker's own settings, or leave out --track",
        ) from error


def options_of(names: Sequence[str], folder: Path) -> dict[str, dict[str, Any]]:
    """What each tracker is started with: the run's name, and where its files go."""
    options: dict[str, dict[str, Any]] = {
        "wandb": {"name": folder.name, "dir": str(folder)},
        "trackio": {"name": folder.name},
        "mlflow": {"run_name": folder.name, "logging_dir": (folder / "mlflow").absolute().as_uri()},
        "swanlab": {"experiment_name": folder.name, "logdir": str(folder / "swanlab")},
    }
    if "mlflow" in options and "MLFLOW_TRACKING_URI" in os.environ:
        del options["mlflow"]["logging_dir"]  # a server has its own place for artifacts
    return {name: options[name] for name in names if name in options}


def _store_of_mlflow(folder: Path) -> None:
    """Let mlflow write to the run folder, unless its environment variable names another store.

    Set for every run anew: a worker of a sweep runs many.
    """
    if "MLFLOW_TRACKING_URI" not in os.environ:
        importlib.import_module("mlflow").set_tracking_uri(f"sqlite:///{folder.absolute() / 'mlflow.db'}")
