"""The parts of the GPU check, by name: ``parts.py NAME [WORD ...] [--cpu]``; figures are the last line, as JSON.

Models are configs with random weights; ``--cpu`` takes tiny ones, to try the code where there is no GPU.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable

import commands
import correct
import rank
import steps
import traced
from shapes import ROOT, Figures

sys.path.insert(0, str(ROOT / "benchmarks"))

PARTS: tuple[Callable[..., Figures], ...] = (
    correct.tests,
    correct.packing,
    correct.precision,
    correct.methods,
    correct.sandbox,
    commands.launch,
    rank.rank,
    commands.plan,
    commands.memory,
    commands.script,
    commands.generation,
    steps.steps,
    traced.profile,
    traced.geometry,
)
NAMES = {part.__name__: part for part in PARTS}


def main() -> None:
    """Run one part."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("name", choices=NAMES)
    parser.add_argument("words", nargs="*")
    parser.add_argument("--cpu", action="store_true")
    arguments = parser.parse_args()
    figures = NAMES[arguments.name](*arguments.words, cpu=arguments.cpu)
    print(json.dumps(figures), flush=True)


if __name__ == "__main__":
    main()
