"""How long listings and help take to start, beside the bare interpreter: ``python benchmarks/startup.py``.

The budget is 0.6 s for ``ls`` and ``run --help`` on an otherwise idle machine; the ratio to the interpreter's own start
is what can be compared between machines.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

COMMANDS = {
    "python -c pass": ["-c", "pass"],
    "alignzoo ls": ["-m", "alignzoo", "ls"],
    "alignzoo run --help": ["-m", "alignzoo", "run", "--help"],
    "alignzoo run --loss drdpo --dry-run": ["-m", "alignzoo", "run", "--loss", "drdpo", "--dry-run"],
}
ROUNDS = 7


def seconds(words: list[str]) -> float:
    """Wall-clock time of one process."""
    began = time.perf_counter()
    subprocess.run([sys.executable, *words], capture_output=True, check=True)
    return time.perf_counter() - began


def main() -> None:
    """Alternating runs, the medians and their ratio to the bare interpreter."""
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(ROUNDS):
        for name, words in COMMANDS.items():
            times[name].append(seconds(words))
    bare = statistics.median(times["python -c pass"])
    print(f"{'command':38s} {'median s':>9s} {'min':>6s} {'max':>6s} {'ratio':>6s}")
    for name, values in times.items():
        median = statistics.median(values)
        print(f"{name:38s} {median:9.3f} {min(values):6.3f} {max(values):6.3f} {median / bare:6.1f}")


if __name__ == "__main__":
    main()
