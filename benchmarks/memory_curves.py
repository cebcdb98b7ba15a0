"""How memory and time of a step grow: ``python benchmarks/memory_curves.py``.

Against the pairs of a step, the tokens of a sequence and the size of the vocabulary, on both sides, with llamas of
random weights and tokens. What is shown is the process's peak less what it held after its imports, and less four times
the weights: them, their gradients and AdamW's two averages. The reference's log-probs are cached, so that no second
model is in it. Pictures need matplotlib (``pip install 'alignzoo[plots]'``).
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import report
from workers import folder_of, measure, prepare, say, trl_python

BODY = {"hidden_size": 384, "intermediate_size": 1024, "num_hidden_layers": 10}
VOCABULARY = 32_000
GIB = 2**30


@dataclass(frozen=True)
class Curve:
    """What grows, at which points; the rest stays at ``pairs`` pairs of ``prompt`` and twice ``response`` tokens."""

    title: str
    axis: str
    points: tuple[int, ...]
    pairs: int = 4
    prompt: int = 128
    response: int = 128
    remark: str = ""

    def at(self, grows: str, point: int) -> tuple[int, int, int, int]:
        """Pairs, tokens of the prompt, tokens of a response, vocabulary."""
        if grows == "pairs":
            return point, self.prompt, self.response, VOCABULARY
        if grows == "length":
            return self.pairs, point // 2, point // 2, VOCABULARY
        return self.pairs, self.prompt, self.response, point


CURVES = {
    "pairs": Curve("Growing batch", "pairs a step", (1, 2, 4, 8, 16)),
    "length": Curve("Growing length", "tokens of prompt and response", (128, 256, 512, 1024, 2048), pairs=2),
    "vocabulary": Curve("Growing vocabulary", "tokens of the vocabulary", (32_000, 64_000, 100_000, 125_000, 150_000)),
}


def write_tokens(path: Path, pairs: int, prompt: int, response: int, steps: int) -> None:
    """Random tokens that every vocabulary has."""
    draw = random.Random(0)
    sizes = {"prompt_ids": prompt, "chosen_ids": response, "rejected_ids": response}
    count = pairs * (steps + 1)
    columns = {
        name: [[draw.randrange(VOCABULARY) for _ in range(size)] for _ in range(count)] for name, size in sizes.items()
    }
    path.write_text(json.dumps(columns))


def take(grows: str, arguments: argparse.Namespace, pythons: dict[str, str], folder: Path) -> dict[str, Any]:
    """All points of a curve, on both sides."""
    curve = CURVES[grows]
    found: dict[str, list[dict[str, float]]] = {side: [] for side in pythons}
    for point in curve.points:
        pairs, prompt, response, vocabulary = curve.at(grows, point)
        tokens = folder / f"curve-{grows}.json"
        write_tokens(tokens, pairs, prompt, response, arguments.steps)
        job = {
            "model": str(folder / "models" / f"vocabulary-{vocabulary}"),
            "tokens": str(tokens),
            "pairs": pairs,
            "steps": arguments.steps,
            "max_length": 4096,
            "cached": True,
            "precision": "fp32",
            "lora": 0,
            "threads": arguments.threads,
        }
        for side, python in pythons.items():
            figures = measure(python, f"steps_{side.lower()}.py", job, f"{grows} {point}, {side}")
            beyond = figures["peak"] - figures["imported"] - 4 * figures["weights"]
            found[side].append({"beyond": beyond, "seconds": statistics.median(figures["seconds"])})
            say(f"{grows} {point} {side}: {beyond / GIB:.3f} GiB, {found[side][-1]['seconds']:.2f} s")
    size = f"{curve.pairs} pairs a step, " if grows != "pairs" else ""
    rest = f"prompt and responses of {curve.prompt} tokens each" if grows != "length" else "half of it prompt"
    remark = f"{size}{rest}; {BODY['num_hidden_layers']} layers of width {BODY['hidden_size']}."
    return {
        "title": curve.title,
        "axis": curve.axis,
        "points": curve.points,
        "sides": found,
        "remark": remark[0].upper() + remark[1:],
        "picture": f"performance-{grows}.png",
        "threads": arguments.threads,
    }


def draw(found: dict[str, Any], path: Path) -> None:
    """Memory and time, on a white ground so that it can be read on a dark page."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    colours = {"alignzoo": "#3949ab", "TRL": "#e65100"}
    with rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(7.2, 2.9), layout="constrained", facecolor="white")
        left, right = figure.subplots(1, 2)
        for side, values in found["sides"].items():
            line = {"color": colours[side], "marker": "o", "markersize": 4, "label": side}
            left.plot(found["points"], [value["beyond"] / GIB for value in values], **line)
            right.plot(found["points"], [value["seconds"] for value in values], **line)
        for axes, what in ((left, "peak beyond weights,\ngradients, optimizer (GiB)"), (right, "seconds a step")):
            axes.set_xlabel(found["axis"])
            axes.set_ylabel(what)
            axes.set_xlim(left=0)
            axes.set_ylim(bottom=0)
            axes.grid(alpha=0.3)
            axes.xaxis.set_major_locator(MaxNLocator(4))
            axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        left.legend(frameon=False)
        figure.savefig(path, dpi=110)


def main() -> None:
    """Measure, keep, draw, show."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--curve", nargs="*", choices=CURVES, help="[default: all]")
    parser.add_argument("--steps", type=int, default=1, help="timed steps")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--env", default="build/benchmarks", help="folder of TRL's environment, or `current`")
    parser.add_argument("--json", type=Path, help="results [default: results.json in the --env folder]")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="put all results into a page, too")
    parser.add_argument("--pictures", type=Path, help="folder for the pictures [default: docs/assets]")
    arguments = parser.parse_args()
    file = arguments.json or report.default_file(arguments.env)
    pictures = arguments.pictures or Path(__file__).parent.parent / "docs" / "assets"
    names = list(CURVES) if arguments.curve is None else arguments.curve  # `--curve` alone: show what is there
    if names:
        pythons = {"alignzoo": sys.executable, "TRL": trl_python(arguments.env)}
        folder = folder_of(arguments.env, "sandbox", "random tokens")
        sizes = {VOCABULARY, *(CURVES["vocabulary"].points if "vocabulary" in names else ())}
        say("models")
        shapes = [f"vocabulary-{size}=" + json.dumps({**BODY, "vocab_size": size}) for size in sorted(sizes)]
        prepare(folder, "--model", "sandbox", "--random", *shapes)
    for name in names:
        found = take(name, arguments, pythons, folder)
        report.keep(file, "curves", name, found)
        draw(found, pictures / found["picture"])
    print(report.text(file, arguments.write))


if __name__ == "__main__":
    main()
