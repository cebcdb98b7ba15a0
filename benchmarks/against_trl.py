"""alignzoo beside TRL's ``DPOTrainer``: ``python benchmarks/against_trl.py --model MODEL --data DATA``.

Every measurement is a process of its own: it loads the model, takes one step to warm up and then times whole steps.
The two sides take turns, with the same pairs in the same order as the same token ids, the same settings and as many
threads; that they do the same work is checked by the numbers that come out. TRL lives in an environment of its own,
made on the first call. Results are kept in a JSON file, where a scenario that is run again replaces what was there.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import report
from scenarios import SCENARIOS, Scenario
from workers import folder_of, measure, prepare, say, trl_python, useful_tokens

SIDES = ("alignzoo", "trl")
SCRIPTS = {"alignzoo": "steps_alignzoo.py", "trl": "steps_trl.py"}
LOSS_TOLERANCE = 1e-4
"""Largest difference of a step's loss in fp32."""
LOGPS_TOLERANCE = {"fp32": 1e-5, "bf16": 2e-2}
"""Largest difference of the first step's mean log-probs, relative."""


def take(scenario: str, arguments: argparse.Namespace, pythons: dict[str, str], folder: Path) -> dict[str, Any]:
    """All rounds of a scenario."""
    case = SCENARIOS[scenario]
    steps = arguments.steps or case.steps
    job = {
        "model": str(folder / "models" / case.model),
        "tokens": str(folder / f"{scenario}.json"),
        "pairs": case.pairs,
        "steps": steps,
        "max_length": case.max_length,
        "cached": case.cached,
        "precision": case.precision,
        "lora": case.lora,
        "threads": arguments.threads,
    }
    found: dict[str, list[dict[str, Any]]] = {side: [] for side in SIDES}
    for round_ in range(arguments.rounds):
        for side in SIDES if round_ % 2 == 0 else SIDES[::-1]:
            figures = measure(pythons[side], SCRIPTS[side], job, f"{scenario}, {side}, round {round_ + 1}")
            found[side].append(figures)
            shown = ", ".join(f"{seconds:.2f}" for seconds in figures["seconds"])
            peak = figures["peak"] / report.GIB
            say(f"{scenario} {round_ + 1}/{arguments.rounds} {side}: {shown} s a step, {peak:.2f} GiB")
        check_same(scenario, case, found["alignzoo"][-1], found["trl"][-1])
    tokens = useful_tokens(folder / f"{scenario}.json", case.pairs, steps + 1)[1:]
    return {**found, "tokens": tokens, "pairs": case.pairs, "model": case.model, "versions": versions(found)}


def check_same(scenario: str, case: Scenario, ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    """Stop where the two sides did not do the same work."""
    problems = []
    for name in ("chosen", "rejected"):
        gap = abs(ours[name][0] - theirs[name][0]) / abs(theirs[name][0])
        if not gap <= LOGPS_TOLERANCE[case.precision]:
            problems.append(f"mean log-probs of {name} responses {ours[name][0]} and {theirs[name][0]}")
    # The weights of a new adapter are drawn, by each side in its own way; before the first update they do nothing.
    count = 1 if case.lora else len(ours["losses"])
    for step, (mine, other) in enumerate(zip(ours["losses"][:count], theirs["losses"][:count], strict=True), 1):
        if case.precision == "fp32" and not abs(mine - other) <= LOSS_TOLERANCE:
            problems.append(f"loss of step {step} {mine} and {other}")
    if problems:
        raise SystemExit(f"{scenario}: alignzoo and TRL did different work: {'; '.join(problems)}")


def versions(found: dict[str, list[dict[str, Any]]]) -> dict[str, str]:
    """Of the packages that both sides use.

    Raises:
        SystemExit: the sides have different ones.
    """
    seen: list[dict[str, str]] = [figures["versions"] for side in SIDES for figures in found[side]]
    if any(other != seen[0] for other in seen):
        raise SystemExit(f"the environments differ: {seen[0]} and {seen[-1]}; remove that of TRL to create it again")
    return seen[0]


def main() -> None:
    """Measure, keep, show."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", default="SmolLM2-135M-Instruct.Q4_1.gguf", help="anything that alignzoo run takes")
    parser.add_argument("--data", default="hh-rlhf-harmless-base-test.jsonl.gz", help="likewise")
    parser.add_argument("--scenario", nargs="*", choices=SCENARIOS, metavar="NAME", help=", ".join(SCENARIOS))
    parser.add_argument("--rounds", type=int, default=2, help="of each scenario, the sides taking turns")
    parser.add_argument("--steps", type=int, help="timed steps of a round [default: the scenario's]")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--env", default="build/benchmarks", help="folder of TRL's environment, or `current`")
    parser.add_argument("--json", type=Path, help="results [default: results.json in the --env folder]")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="put the results into a page, too")
    arguments = parser.parse_args()
    file = arguments.json or report.default_file(arguments.env)
    names = [name for name, case in SCENARIOS.items() if case.default]
    names = names if arguments.scenario is None else arguments.scenario  # `--scenario` alone: show what is there
    if names:
        pythons = {"alignzoo": sys.executable, "trl": trl_python(arguments.env)}
        folder = folder_of(arguments.env, arguments.model, arguments.data)
        counts = {name: SCENARIOS[name].pairs * ((arguments.steps or SCENARIOS[name].steps) + 1) for name in names}
        say("models and tokens")
        words = [f"{name}={count}" for name, count in counts.items()]
        prepare(folder, "--model", arguments.model, "--data", arguments.data, "--scenario", *words)
    for name in names:
        results = {**take(name, arguments, pythons, folder), "threads": arguments.threads}
        report.keep(file, "scenarios", name, {**results, "given": Path(arguments.model).name})
    print(report.text(file, arguments.write))


if __name__ == "__main__":
    main()
