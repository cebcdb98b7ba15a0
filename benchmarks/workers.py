"""Processes that measure: the environments they run in, what they are given, and what they print.

The process that starts them stays small and imports nothing: a child's peak memory begins at its parent's.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from measured import PACKAGES, Job

HERE = Path(__file__).parent
TRL = "1.16.*"
PATIENCE = 3600
"""Seconds that one measurement may take."""


def trl_python(env: str) -> str:
    """The interpreter that has TRL: this one for ``current``, else that of an environment in ``<env>/trl``, made once.

    torch, transformers and what else both sides use are pinned to the versions that are installed here.
    """
    if env == "current":
        return sys.executable
    folder = Path(env) / "trl"
    python, finished = folder / "bin" / "python", folder / "finished"
    if not finished.exists():
        pins = [f"{name}=={version(name)}" for name in PACKAGES]
        constraints = HERE.parent / "constraints.txt"
        also = ["-c", str(constraints)] if constraints.is_file() else []
        say(f"installing trl {TRL} into {folder}")
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", f"trl=={TRL}", *pins, *also], check=True)
        finished.touch()
    return str(python)


def folder_of(env: str, model: str, data: str) -> Path:
    """Where the models and tokens of this model and this data are kept."""
    named = []
    for name in (model, data):
        path = Path(name).expanduser()
        named.append(f"{path.resolve()} {path.stat().st_mtime_ns}" if path.exists() else name)
    key = hashlib.sha256("\n".join(named).encode()).hexdigest()[:12]
    folder = Path("build/benchmarks" if env == "current" else env) / f"inputs-{key}"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def prepare(folder: Path, *words: str) -> None:
    """Run :mod:`inputs` with ``words``."""
    _run([sys.executable, str(HERE / "inputs.py"), "--folder", str(folder), *words], os.environ)


def measure(python: str, script: str, job: dict[str, Any], attempt: str) -> dict[str, Any]:
    """What ``script`` measures.

    Args:
        job: the fields of a :class:`measured.Job` but its scratch folder.
        attempt: what an error calls it.
    """
    with tempfile.TemporaryDirectory() as scratch:
        given = Job(**job, scratch=scratch)
        file = Path(scratch) / "job.json"
        file.write_text(given.to_json())
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": str(given.threads),
            "ALIGNZOO_CACHE": f"{scratch}/cache",  # nothing is found there
            "HF_DATASETS_CACHE": f"{scratch}/datasets",
            "HF_HUB_OFFLINE": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "TOKENIZERS_PARALLELISM": "false",
        }
        output = _run(
            [python, "-W", "ignore", str(HERE / script), str(file), "--began", repr(time.time())], environment, attempt
        )
    figures: dict[str, Any] = json.loads(output.splitlines()[-1])
    return figures


def useful_tokens(file: Path, pairs: int, steps: int) -> list[int]:
    """Tokens of each step, a pair's prompt counted once."""
    columns = json.loads(file.read_text())
    lengths = [sum(len(values[row]) for values in columns.values()) for row in range(pairs * steps)]
    return [sum(lengths[start : start + pairs]) for start in range(0, len(lengths), pairs)]


def say(text: str) -> None:
    """A line of progress."""
    print(f"[{time.strftime('%H:%M:%S')}] {text}", file=sys.stderr, flush=True)


def _run(words: list[str], environment: Any, what: str = "") -> str:
    ended = subprocess.run(words, capture_output=True, text=True, env=dict(environment), timeout=PATIENCE)
    if ended.returncode:
        raise SystemExit(f"{what or ' '.join(words)}: exit {ended.returncode}\n{ended.stderr[-4000:]}")
    return ended.stdout
