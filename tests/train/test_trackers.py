"""Trackers of experiments: where they write, and what is said of one that does not start."""

from __future__ import annotations

from pathlib import Path

import pytest
from accelerate import Accelerator

from alignzoo.errors import AlignzooError
from alignzoo.plan.settings import TRACKERS
from alignzoo.train import trackers
from alignzoo.train.trackers import options_of, start_trackers


def test_accelerate_knows_every_tracker() -> None:
    from accelerate.utils import LoggerType

    assert set(TRACKERS) <= set(LoggerType.list())


def test_trackers_write_to_the_run_folder_under_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    folder = tmp_path / "first"
    options = options_of(TRACKERS, folder)
    assert set(options) == {"wandb", "trackio", "mlflow", "swanlab"}, "tensorboard takes accelerate's project folder"
    assert options["wandb"] == {"name": "first", "dir": str(folder)}
    assert options["mlflow"]["logging_dir"] == (folder / "mlflow").as_uri()
    assert options_of(["trackio"], folder) == {"trackio": {"name": "first"}}


def test_mlflow_keeps_the_store_that_the_user_names_and_no_earlier_run_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """mlflow sets the variable itself, which a later run of the same process must not take for the user's."""
    monkeypatch.setattr(trackers, "_ours", {"sqlite:///earlier/mlflow.db"})
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///earlier/mlflow.db")
    assert "logging_dir" in options_of(["mlflow"], tmp_path)["mlflow"]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://server")
    assert "logging_dir" not in options_of(["mlflow"], tmp_path)["mlflow"]


def test_a_tracker_that_does_not_start_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file where the tracker wants a folder")
    accelerator = Accelerator(cpu=True, log_with=["tensorboard"], project_dir=str(tmp_path / "taken"))
    with pytest.raises(AlignzooError, match="--track tensorboard: a tracker did not start: "):
        start_trackers(accelerator, ["tensorboard"], tmp_path, {"lr": 0.1})
