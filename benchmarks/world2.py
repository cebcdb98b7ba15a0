"""What docs/world2.md states of world 2: figures of ``sft`` and plain ``dpo``, its power, and a bag of words.

``python benchmarks/world2.py words`` and ``python benchmarks/world2.py runs --out DIR``; both print Markdown. Runs are
made with the recipe, one after another in one process, and those whose result is in DIR are not made again.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import alignzoo_world2
import yaml
from alignzoo_world2.generate import EVALUATION_SPLITS, TRAIN_PAIRS, prompts

SEEDS = range(5)


def words() -> None:
    """Accuracy of a logistic regression on word counts, trained on the training prompts, by world and split."""
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression

    splits = ("validation", *EVALUATION_SPLITS)
    print_table(["world", "train", *splits], [])
    for world in range(alignzoo_world2.WORLDS):
        counts = CountVectorizer()
        model = LogisticRegression(max_iter=1000)
        train = prompts("train", TRAIN_PAIRS, world=world)
        model.fit(counts.fit_transform([prompt.text for prompt in train]), [prompt.harmful for prompt in train])
        row = [str(world)]
        for asked in (train, *(prompts(split, world=world) for split in splits)):
            features = counts.transform([prompt.text for prompt in asked])
            row.append(f"{model.score(features, [prompt.harmful for prompt in asked]):.2f}")
        print_row(row)


def runs(out: Path, worlds: Sequence[int], seeds: Sequence[int], arms: Sequence[str], steps: int | None) -> None:
    """Mean and standard deviation over seeds of every figure, by world and arm, and what a paired test detects."""
    for world in worlds:
        for arm in arms:
            results = [one_run(out, world, arm, seed, steps) for seed in seeds]
            print(f"\n**World {world}, {arm}**\n")
            print_table(["figure", "before", "mean", "standard deviation", "detectable difference"], [])
            for name in results[0]["after"]:
                values = [result["after"][name] for result in results]
                spread = statistics.stdev(values) if len(values) > 1 else float("nan")
                row = (results[0]["before"][name], statistics.mean(values), spread, detectable(spread, len(values)))
                print_row([name, *(f"{value:.3f}" for value in row)])


def detectable(spread: float, seeds: int) -> float:
    """The difference that a paired t-test over ``seeds`` detects at 80 % power (level .05, two-sided).

    The differences of pairs are given the spread of two independent runs, sqrt(2) times that of one: the worst case of
    pairing that removes nothing.
    """
    from statsmodels.stats.power import TTestPower

    if not spread > 0:
        return float("nan")
    return float(TTestPower().solve_power(nobs=seeds, alpha=0.05, power=0.8)) * spread * 2**0.5


def one_run(out: Path, world: int, arm: str, seed: int, steps: int | None) -> dict[str, Any]:
    """``before`` and ``after`` of a run; ``arm`` is a loss, and a rate of label noise after a hyphen."""
    import alignzoo

    folder = out / f"world{world}-{arm}-{seed}"
    kept = out / f"{folder.name}.json"
    if not kept.exists():
        loss, _, noise = arm.partition("-")
        recipe = yaml.safe_load(Path(alignzoo_world2.__file__).with_name("world2.yaml").read_text(encoding="utf-8"))
        recipe.pop("description")
        if loss != "dpo":
            recipe["loss"] = f"alignzoo:{loss}"
        name = alignzoo_world2.name_of(world)
        recipe |= {"model": name, "data": name, "seed": seed, "label-noise": float(noise or 0), "out": str(folder)}
        if steps is not None:
            recipe["max-steps"] = steps
        result = alignzoo.run(recipe)
        figures = {
            side: {name: value for name, value in getattr(result, side).items() if name.startswith("world2/")}
            for side in ("before", "after")
        }
        kept.write_text(json.dumps(figures), encoding="utf-8")
    return dict(json.loads(kept.read_text(encoding="utf-8")))


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A Markdown table."""
    print_row(columns)
    print_row(["---"] * len(columns))
    for row in rows:
        print_row(row)


def print_row(cells: Sequence[str]) -> None:
    """A row of a Markdown table, as soon as it is known."""
    print("| " + " | ".join(cells) + " |", flush=True)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("words")
    measured = commands.add_parser("runs")
    measured.add_argument("--out", type=Path, required=True)
    measured.add_argument("--worlds", type=int, nargs="+", default=[0])
    measured.add_argument("--seeds", type=int, default=len(SEEDS))
    measured.add_argument("--arms", nargs="+", default=["dpo", "dpo-0.3", "sft"])
    measured.add_argument("--steps", type=int)
    options = parser.parse_args()
    if options.command == "words":
        words()
    else:
        options.out.mkdir(parents=True, exist_ok=True)
        runs(options.out, options.worlds, range(options.seeds), options.arms, options.steps)


if __name__ == "__main__":
    main()
