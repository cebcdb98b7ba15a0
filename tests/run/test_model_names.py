"""What ``--model`` and hub ids that cannot be loaded are answered with; nothing is loaded here."""

from __future__ import annotations

from pathlib import Path

import pytest

from alignzoo.base.hub import offline_hint
from alignzoo.cli.main import main
from alignzoo.data.sources import load_rows
from alignzoo.errors import DataError, ModelError
from alignzoo.model.load import load_tokenizer
from alignzoo.model.source import find_model
from alignzoo.plan.settings import Settings


def test_a_run_folder_is_answered_with_its_model(tmp_path: Path) -> None:
    run = tmp_path / "a"
    run.mkdir()
    (run / "plan.yaml").write_text("x: 1")
    with pytest.raises(ModelError, match=f"--model {run} is the folder of a run that has not saved") as unfinished:
        find_model(str(run))
    assert f"--resume {run}" in str(unfinished.value.hint)
    (run / "result.json").write_text("{}")
    with pytest.raises(ModelError, match="of a run that did not keep its model") as kept_none:
        find_model(str(run))
    assert "without --no-save-model" in str(kept_none.value.hint)
    (run / "model").mkdir()
    with pytest.raises(ModelError, match=f"--model {run} is the folder of a run") as error:
        find_model(str(run))
    assert error.value.hint == f"did you mean its model, {run / 'model'}?"


def test_a_file_that_only_calls_itself_gguf(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_text("<html>")
    with pytest.raises(ModelError, match=r"m.gguf is not a GGUF file"):
        find_model(str(tmp_path / "m.gguf"))


def test_a_hub_id_without_a_network_names_the_switch(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelError) as model:
        load_tokenizer(find_model("org/nothing"), Settings())
    with pytest.raises(DataError) as data:
        load_rows("org/nothing")
    for hint in (model.value.hint, data.value.hint):
        assert "HF_HUB_OFFLINE is set" in str(hint)
        assert "local folder" in str(hint)
    monkeypatch.delenv("HF_HUB_OFFLINE")
    assert "HF_HUB_OFFLINE=1" in str(offline_hint("We couldn't connect to 'https://huggingface.co'"))
    assert offline_hint("Unrecognized model") is None


def test_sharpness_of_a_path_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["sharpness", "nope"])
    assert end.value.code == 2
    assert "nope: no such run folder" in capsys.readouterr().err
