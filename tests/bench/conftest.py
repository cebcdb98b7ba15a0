"""The tiny world, known to the tests of this folder that ask for it."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from alignzoo.plugin.registry import plugins_from

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))


@pytest.fixture
def tiny_world(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    import sweeping

    sweeping.RAN.clear()
    monkeypatch.setenv("ALIGNZOO_CACHE", str(tmp_path / "cache"))
    with plugins_from(HERE / "tiny_world.py"):
        yield "tiny-world"
