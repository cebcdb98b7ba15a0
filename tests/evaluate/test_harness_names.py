"""What ``--tasks`` takes, checked before any weight loads."""

from __future__ import annotations

from pathlib import Path

import pytest

from alignzoo.errors import UnknownNameError, UsageError
from alignzoo.evaluate.tasks.harness import check_tasks

OWN = {
    "one.yaml": "task: pets_cats\ntag: pets\ndataset_path: a/b\n",
    "two.yaml": "task: pets_dogs\ntag: pets\ndataset_path: a/b\n",
    "code.yaml": "task: pets_code\ndataset_path: a/b\nunsafe_code: true\n",
    "group.yaml": "group: animals\ntask:\n  - pets\n  - task: pets_code\n",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in OWN.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def test_tasks_tags_groups_and_files_are_names(folder: Path) -> None:
    names = ["pets_cats", "pets", "pets_cats", str(folder / "two.yaml")]
    assert check_tasks(names, folder) == ["pets_cats", "pets", str(folder / "two.yaml")]


def test_a_task_that_runs_code_wants_to_be_confirmed(folder: Path) -> None:
    with pytest.raises(UsageError, match="pets_code: runs code that the model writes") as refused:
        check_tasks(["animals"], folder)
    assert "--confirm-run-unsafe-code" in str(refused.value)
    assert check_tasks(["animals"], folder, confirm_unsafe_code=True) == ["animals"]


def test_a_folder_without_tasks_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="has no lm-eval task"):
        check_tasks(["pets"], tmp_path)


@pytest.mark.slow  # the first look at lm-eval's 14,000 files
def test_lm_eval_s_own_names(folder: Path) -> None:
    assert check_tasks(["capability"])[:2] == ["mmlu", "gsm8k"]
    assert "arc_easy" in check_tasks(["arc_*", "capability-small"])
    assert check_tasks(["arc_easy", "pets"], folder) == ["arc_easy", "pets"]
    with pytest.raises(UnknownNameError, match="no task of lm-eval is named 'helaswag'") as refused:
        check_tasks(["helaswag"])
    assert "hellaswag" in str(refused.value)
    with pytest.raises(UsageError, match="humaneval"):
        check_tasks(["humaneval"])
