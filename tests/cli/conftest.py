"""The real command line, and plugins made up on the spot."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from cli_helpers import AddPlugin, Az
from forked import alignzoo_forked

from alignzoo.cli.main import main


@pytest.fixture(scope="session")
def az() -> Az:
    """Runs ``alignzoo WORDS``; ``plugins`` is a folder of distributions to add to the environment."""

    def run(
        *words: str, plugins: Path | None = None, cwd: Path | None = None, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        env = {**os.environ, **environment}
        if plugins is not None:
            env["PYTHONPATH"] = str(plugins)
        if _needs_torch(words):
            return alignzoo_forked(words, cwd=cwd or Path.cwd(), environment=env, timeout=300)
        return subprocess.run(
            [sys.executable, "-m", "alignzoo", *words], capture_output=True, text=True, env=env, cwd=cwd, timeout=120
        )

    return run


def _needs_torch(words: tuple[str, ...]) -> bool:
    """Whether most of the time would go into importing it."""
    return words[:1] == ("check",) or (words[:1] == ("run",) and not {"--dry-run", "--help"} & set(words))


@pytest.fixture
def az_here(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Az:
    """The same ``main`` without a new process: for the many lines that differ in their words only."""

    def run(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        with monkeypatch.context() as patch:
            for name, value in environment.items():
                patch.setenv(name, value)
            with pytest.raises(SystemExit) as end:
                main(words)
        captured = capsys.readouterr()
        assert isinstance(end.value.code, int)
        return subprocess.CompletedProcess(words, end.value.code, captured.out, captured.err)

    return run


@pytest.fixture
def add_plugin(tmp_path: Path) -> AddPlugin:
    """Puts a distribution with one plugin module into a folder for PYTHONPATH, and returns the folder."""

    def add(distribution: str, source: str) -> Path:
        module = distribution.replace("-", "_")
        info = tmp_path / f"{module}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[alignzoo]\n{module} = {module}\n")
        (tmp_path / f"{module}.py").write_text(source)
        return tmp_path

    return add
