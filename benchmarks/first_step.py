"""An ``alignzoo run`` up to its first step, in a process of its own; :mod:`startup` starts it.

Prints one line of JSON: seconds from the start of the process to the end of each stage, in their order, and the CPU
seconds of them all.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from typing import Any

STAGES = {
    "imports": "",
    "data": "loading ",
    "model, packing": "packing",
    "reference": "reference log-probs",
    "evaluation": "",
}
"""Stages by name, with how the message begins that ends each; evaluation ends with the first step."""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("recipe", help="the run's words, as JSON")
    parser.add_argument("--began", type=float, required=True)
    arguments = parser.parse_args()
    ends: dict[str, float] = {}

    def ended(stage: str) -> None:
        ends[stage] = time.time() - arguments.began

    from alignzoo.base.heap import collecting_later

    with collecting_later(freeze=True):  # as the command does
        import alignzoo.session.session
        import alignzoo.train.begin  # noqa: F401

    ended("imports")
    from alignzoo.report import Reporter
    from alignzoo.runs.execute import run
    from alignzoo.train.loop import Loop

    class Stamps(Reporter):
        def note(self, text: str) -> None:
            for stage, beginning in STAGES.items():
                if beginning and text.startswith(beginning):
                    ended(stage)

    def at_the_first_step(_loop: Any) -> None:
        ended("evaluation")
        print(json.dumps({"ends": ends, "cpu": time.process_time()}), flush=True)
        raise KeyboardInterrupt

    Loop.run = at_the_first_step  # type: ignore[method-assign]
    try:
        run(json.loads(arguments.recipe), report=Stamps())
    except BaseException:
        if "evaluation" not in ends:
            raise
    sys.exit(0)


if __name__ == "__main__":
    main()
