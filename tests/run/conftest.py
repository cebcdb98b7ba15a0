"""Runs as users start them, on tiny real models; every cache goes to a folder of the test session."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from alignzoo_sandbox import MODEL_PATH, preference_rows
from in_process import call_main
from run_helpers import Az, MakeModel, OnTwoRanks, RunFolder, Start, Train, tiny_model, write_rows

import alignzoo
from alignzoo.report import Reporter

TWO = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--no-python")


@pytest.fixture(scope="session")
def session(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("run")


@pytest.fixture(scope="session")
def environment(session: Path) -> dict[str, str]:
    """What keeps a run from the user's caches, the network and the other core."""
    return {
        "ALIGNZOO_CACHE": str(session / "alignzoo"),
        "HF_HOME": str(session / "hf"),
        "HF_DATASETS_CACHE": str(session / "datasets"),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
    }


@pytest.fixture(autouse=True)
def own_caches(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The same for runs inside this process, on one thread as well."""
    import datasets

    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    cache = Path(environment["HF_DATASETS_CACHE"])
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", cache)
    monkeypatch.setattr(datasets.config, "DOWNLOADED_DATASETS_PATH", cache / "downloads")
    monkeypatch.setattr(datasets.config, "EXTRACTED_DATASETS_PATH", cache / "downloads" / "extracted")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def pairs(session: Path) -> Path:
    """64 harmful requests of the sandbox, refused rather than answered, in a file of the user's own."""
    rows = [row for row in preference_rows("train", 256) if not row["rejected_safe"]]
    return write_rows(session / "pairs.jsonl", rows[:64])


@pytest.fixture(scope="session")
def words(pairs: Path) -> dict[str, Any]:
    """A run of a few steps on those pairs, with enough of them for a probe."""
    return {
        "model": "sandbox",
        "data": str(pairs),
        "probe.share": 0.5,
        "max-steps": 2,
        "epochs": 9,
        "batch-size": 8,
        "micro-batch-size": 4,
        "lr": 1e-3,
        "warmup-steps": 0,
    }


@pytest.fixture
def train(words: dict[str, Any], tmp_path: Path) -> Train:
    """``alignzoo.run`` with more or other words, None leaves one out; ``plain=True`` leaves the ones above out."""
    count = 0

    def run(*, report: Reporter | None = None, plain: bool = False, **given: Any) -> RunFolder:
        nonlocal count
        count += 1
        dashed = {name.replace("_", "-"): value for name, value in given.items()}
        recipe = {"out": str(tmp_path / f"run-{count}"), **({} if plain else words), **dashed}
        recipe = {name: value for name, value in recipe.items() if value is not None}
        return RunFolder(Path(alignzoo.run(recipe, report=report).folder))

    return run


@pytest.fixture
def command(words: dict[str, Any]) -> Callable[..., list[str]]:
    """The words of the same run for a command line; None leaves one out, and so does another value among ``more``."""

    def line(out: Path, *more: str, **given: Any) -> list[str]:
        dashed = {name.replace("_", "-"): value for name, value in given.items()}
        settings = {
            name: value
            for name, value in {**words, "out": out, **dashed}.items()
            if value is not None and f"--{name}" not in more
        }
        return ["run", *(word for name, value in settings.items() for word in (f"--{name}", str(value))), *more]

    return line


@pytest.fixture
def az(capfd: pytest.CaptureFixture[str]) -> Az:
    """``alignzoo WORDS`` by the real ``main``, in this process: for the many lines that differ in their words only."""

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return call_main(words, capfd)

    return run


@pytest.fixture
def start(environment: dict[str, str], tmp_path: Path) -> Iterator[Start]:
    """Starts ``alignzoo WORDS`` as a process of its own, in another folder than the checkout."""
    started: list[subprocess.Popen[str]] = []

    def run(*words: str, launcher: tuple[str, ...] = (), **options: Any) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, *launcher, "-m", "alignzoo", *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
            env={**os.environ, **environment},
            **options,
        )
        started.append(process)
        return process

    yield run
    for process in started:
        if process.poll() is None:
            process.kill()
            process.communicate()


@pytest.fixture
def on_two_ranks(start: Start, monkeypatch: pytest.MonkeyPatch) -> OnTwoRanks:
    """``alignzoo WORDS`` on two ranks of this machine's CPU, as torchrun starts them, with more in the environment."""

    def run(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        with monkeypatch.context() as during:
            for name, value in environment.items():
                during.setenv(name, value)
            process = start(*words, launcher=(*TWO, sys.executable))
        stdout, stderr = process.communicate(timeout=200)
        return subprocess.CompletedProcess(words, process.returncode, stdout, stderr)

    return run


@pytest.fixture(scope="session")
def make_model(session: Path) -> MakeModel:
    """Saves a tiny random causal LM of a family, with the sandbox's tokenizer, and returns its folder."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(MODEL_PATH)
    made: dict[str, Path] = {}

    def make(family: str = "llama", *, chat_template: bool = True, name: str | None = None) -> Path:
        name = name or family
        if name not in made:
            folder = session / "models" / name
            tiny_model(family, len(tokenizer), tokenizer.pad_token_id, tokenizer.eos_token_id).save_pretrained(folder)
            tokenizer.save_pretrained(folder)
            if not chat_template:
                (folder / "chat_template.jinja").unlink()
            made[name] = folder
        return made[name]

    return make
