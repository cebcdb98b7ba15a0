"""Trackers of experiments: started through accelerate, with their files in the run folder where they take one."""

from __future__ import annotations

import contextlib
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
        if "mlflow" in names and accelerator.is_main_process and not _has_own_store():
            _set_store(f"sqlite:///{folder.absolute() / 'mlflow.db'}")
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
    if _has_own_store():
        del options["mlflow"]["logging_dir"]  # a server has its own place for artifacts
    return {name: options[name] for name in names if name in options}


def finish_trackers(accelerator: Accelerator) -> None:
    """Let the trackers of a run that has failed go, so that the next run of this process can start its own."""
    for tracker in accelerator.trackers:
        with contextlib.suppress(Exception):  # the run's own error is the one to tell
            tracker.finish()


def log_texts(
    accelerator: Accelerator, name: str, columns: Sequence[str], rows: Sequence[Sequence[str]], step: int
) -> None:
    """Give rows of text to every tracker of the run: as a table or a file where it takes these, else one by one."""
    for tracker in accelerator.trackers:
        texts = {f"{name}/{i}": "\n\n".join(row) for i, row in enumerate(rows)}
        if hasattr(tracker, "log_table"):
            tracker.log_table(name, columns=list(columns), data=[list(row) for row in rows], step=step)
        elif tracker.name == "mlflow":
            importlib.import_module("mlflow").log_text("\n\n\n".join(texts.values()), f"{name}/step-{step}.txt")
        elif tracker.name == "swanlab":
            as_text = importlib.import_module("swanlab").Text
            tracker.log({key: as_text(text) for key, text in texts.items()}, step=step)
        else:
            tracker.log(texts, step=step)


_STORE, _ours = "MLFLOW_TRACKING_URI", set[str]()


def _has_own_store() -> bool:
    """Whether the user has named mlflow's store; mlflow itself sets the variable to the one that it was given."""
    return os.environ.get(_STORE) not in {None, *_ours}


def _set_store(uri: str) -> None:
    _ours.add(uri)
    importlib.import_module("mlflow").set_tracking_uri(uri)
