"""How long listings and help take to start, beside the bare interpreter: ``python benchmarks/startup.py``.

Budgets on an otherwise idle machine: 0.6 s for ``ls`` and ``run --help``, 1.0 s for ``ls`` with 50 third-party plugins
of one method each (real distributions in a temporary folder, each with a card and options of its own). The ratio to the
interpreter's own start is what can be compared between machines.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

LS, CROWDED = "alignzoo ls", "alignzoo ls, 50 plugins"
COMMANDS = {
    "python -c pass": ["-c", "pass"],
    LS: ["-m", "alignzoo", "ls"],
    CROWDED: ["-m", "alignzoo", "ls"],
    "alignzoo run --help": ["-m", "alignzoo", "run", "--help"],
    "alignzoo run --loss drdpo --dry-run": ["-m", "alignzoo", "run", "--loss", "drdpo", "--dry-run"],
}
ROUNDS = 7
PLUGINS = 50
PLUGIN = '''"""A plugin with one loss."""

from pydantic import Field

from alignzoo.interfaces import PreferenceLoss
from alignzoo.lazy import F, torch
from alignzoo.plugin import Card, Options, hookimpl


class LossOptions(Options):
    beta: float = Field(0.1, gt=0, description="strength of the KL constraint to the reference")


class Loss(PreferenceLoss):
    options: LossOptions

    def __call__(self, pairs):
        chosen, rejected = self.rewards(pairs)
        return -F.logsigmoid(chosen - rejected)

    def rewards(self, pairs):
        chosen, rejected = pairs.log_ratios()
        return self.options.beta * chosen, self.options.beta * rejected


@hookimpl
def alignzoo_methods():
    return [
        Card(
            kind="loss", name="crowd-{index}", target=f"{{__name__}}:Loss", options=LossOptions,
            summary="one of many", formula="-log sigma(beta h)", needs=frozenset({{"reference"}}), api=1,
        )
    ]
'''


def install_plugins(folder: Path) -> None:
    """Put the plugins into a folder for PYTHONPATH, as pip would."""
    for index in range(PLUGINS):
        name = f"crowd_{index}"
        (folder / f"{name}.py").write_text(PLUGIN.format(index=index))
        info = folder / f"{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[alignzoo]\n{name} = {name}\n")


def seconds(words: list[str], path: str) -> float:
    """Wall-clock time of one process."""
    began = time.perf_counter()
    subprocess.run([sys.executable, *words], capture_output=True, check=True, env={**os.environ, "PYTHONPATH": path})
    return time.perf_counter() - began


def main() -> None:
    """Alternating runs, the medians and their ratio to the bare interpreter."""
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    with tempfile.TemporaryDirectory() as folder:
        install_plugins(Path(folder))
        for name, words in COMMANDS.items():  # once for the compiled files
            seconds(words, folder if name == CROWDED else "")
        for _ in range(ROUNDS):
            for name, words in COMMANDS.items():
                times[name].append(seconds(words, folder if name == CROWDED else ""))
    bare = statistics.median(times["python -c pass"])
    print(f"{'command':38s} {'median s':>9s} {'min':>6s} {'max':>6s} {'ratio':>6s}")
    for name, values in times.items():
        median = statistics.median(values)
        print(f"{name:38s} {median:9.3f} {min(values):6.3f} {max(values):6.3f} {median / bare:6.1f}")


if __name__ == "__main__":
    main()
