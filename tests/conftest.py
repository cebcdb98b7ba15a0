"""Fixtures for all tests: caches in a temporary folder, one thread per worker, tiny real models."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("alignzoo", deadline=None)  # the machine's speed is not what is tested
settings.load_profile("alignzoo")

# Before any library reads them: nothing of a test may reach the user's caches, and two workers share two cores.
_SCRATCH = tempfile.TemporaryDirectory(prefix="alignzoo-tests-")
os.environ["ALIGNZOO_CACHE"] = str(Path(_SCRATCH.name) / "alignzoo")
os.environ["HF_DATASETS_CACHE"] = str(Path(_SCRATCH.name) / "datasets")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

SHARED = Path(__file__).parents[2] / "shared"


def pytest_unconfigure() -> None:
    _SCRATCH.cleanup()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    import torch

    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@pytest.fixture(scope="session", autouse=True)
def _hang_ups_count() -> None:
    """Under nohup, and Ctrl-C in the background, they are ignored, by every process that a test starts as well."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def _no_waiting_for_the_disk() -> Iterator[None]:
    """No test cuts the power: what is written need not reach the disk at once. Other processes still wait for it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: None)
        yield


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
