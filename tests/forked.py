"""``alignzoo WORDS`` in a process of its own that need not import torch and its friends first.

It is forked from one that has done nothing but import them (``multiprocessing``'s fork server, one for each worker of
pytest). Whatever of alignzoo and of plugins it needs, it imports itself, from a path of its own.
"""

from __future__ import annotations

import functools
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

IMPORTED = [
    "torch",
    "transformers.models.auto.modeling_auto",
    "transformers.models.auto.tokenization_auto",
    "transformers.models.llama.modeling_llama",
    "datasets",
    "accelerate",
    "peft",
]


def alignzoo_forked(
    words: Sequence[str], *, cwd: Path, environment: Mapping[str, str], timeout: float
) -> subprocess.CompletedProcess[str]:
    """What ``python -m alignzoo WORDS`` prints there, and its exit code.

    Raises:
        subprocess.TimeoutExpired: it did not end in so many seconds.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(IMPORTED)
    added = [path for path in environment.get("PYTHONPATH", "").split(os.pathsep) if path]
    path = [str(cwd), *added, *_search_path()]
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / name for name in ("out", "err")]
        given = (list(words), str(cwd), dict(environment), path, [str(file) for file in files])
        process = context.Process(target=_alignzoo, args=given)
        process.start()
        process.join(timeout)
        if process.exitcode is None:
            process.kill()
            process.join()
            raise subprocess.TimeoutExpired(list(words), timeout)
        out, err = (file.read_text(encoding="utf-8") for file in files)
    return subprocess.CompletedProcess(list(words), process.exitcode, out, err)


def _alignzoo(words: list[str], cwd: str, environment: dict[str, str], path: list[str], files: list[str]) -> None:
    import atexit

    for number, name in enumerate(files, 1):
        os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT), number)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    sys.path[:] = path
    if "--devices" in words:
        _fork_workers()
    try:
        _main(words)
    finally:
        atexit._run_exitfuncs()


def _main(words: list[str]) -> None:
    import runpy

    sys.argv = ["alignzoo", *words]
    runpy.run_module("alignzoo", run_name="__main__", alter_sys=True)


def _fork_workers() -> None:
    """Have torchrun's launcher fork the workers of ``--devices``, too, in place of ``python -m alignzoo WORDS``."""
    from torch.distributed.launcher import api

    launch = api.elastic_launch

    def fork(config: api.LaunchConfig, _python: str) -> Callable[..., Any]:
        config.start_method = "fork"
        return lambda _m, _module, *words: launch(config, _worker)(list(words))

    api.elastic_launch = fork


def _worker(words: list[str]) -> None:
    """A worker; the launcher waits for those that return."""
    try:
        _main(words)
    except SystemExit as ended:
        if ended.code:
            raise


@functools.cache
def _search_path() -> list[str]:
    """That of a fresh Python, without the folder that it is started in."""
    code = "import json, sys; print(json.dumps(sys.path[1:]))"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    found: list[str] = json.loads(ended.stdout)
    return found
