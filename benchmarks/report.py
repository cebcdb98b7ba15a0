"""Results of the benchmarks: kept in one JSON file, shown as Markdown, put into a page between two marks."""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from scenarios import SCENARIOS

BEGIN, END = "<!-- results -->", "<!-- end -->"
GIB = 2**30


def default_file(env: str) -> Path:
    """Where results go that are sent nowhere else."""
    return Path("build/benchmarks" if env == "current" else env) / "results.json"


def keep(file: Path, kind: str, name: str, results: dict[str, Any]) -> None:
    """Put one measurement in the place of the last one of its name."""
    content = json.loads(file.read_text()) if file.exists() else {}
    stamp = {"date": time.strftime("%Y-%m-%d"), "machine": machine()}
    content.setdefault(kind, {})[name] = {**results, **stamp}
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".partial")
    partial.write_text(json.dumps(content, indent=1))
    partial.replace(file)


def machine() -> str:
    """Processor, cores and memory."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
        flags = next(line for line in lines if line.startswith("flags"))
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIB
    except (OSError, StopIteration):
        return f"{os.cpu_count()} cores"
    bf16 = "native bf16" if "avx512_bf16" in flags or "amx_bf16" in flags else "no native bf16"
    return f"{name}, {os.cpu_count()} cores, {memory:.0f} GiB, {bf16}"


def text(file: Path, page: Path | None = None) -> str:
    """All results as Markdown; with ``page``, written there as well.

    Raises:
        SystemExit: there are none, or the page has no marks.
    """
    if not file.exists():
        raise SystemExit(f"no results in {file}")
    content = json.loads(file.read_text())
    parts = [*_scenarios(content.get("scenarios", {})), *_shares(content.get("gemm", {}))]
    parts += _curves(content.get("curves", {}))
    shown = "\n".join(parts)
    if page is not None:
        before = page.read_text()
        if BEGIN not in before or END not in before.split(BEGIN, 1)[1]:
            raise SystemExit(f"{page} has no {BEGIN} and {END} to write between")
        head, rest = before.split(BEGIN, 1)
        page.write_text(f"{head}{BEGIN}\n\n{shown}\n\n{END}{rest.split(END, 1)[1]}")
    return shown


def ratios(found: dict[str, Any]) -> list[float]:
    """TRL's seconds over ours, by round."""
    rounds = zip(found["alignzoo"], found["trl"], strict=True)
    return [sum(theirs["seconds"]) / sum(ours["seconds"]) for ours, theirs in rounds]


def memory_ratios(found: dict[str, Any]) -> list[float]:
    """Our peak over TRL's, by round."""
    return [ours["peak"] / theirs["peak"] for ours, theirs in zip(found["alignzoo"], found["trl"], strict=True)]


def _scenarios(results: dict[str, Any]) -> list[str]:
    present = [name for name in SCENARIOS if name in results]
    if not present:
        return []
    times, memories = [], []
    for name in present:
        found, case = results[name], SCENARIOS[name]
        ours, theirs, tokens = found["alignzoo"], found["trl"], sum(found["tokens"])
        times.append(
            (
                f"`{name}`",
                *(_spread(seconds for figures in side for seconds in figures["seconds"]) for side in (ours, theirs)),
                _verdict(ratios(found), case.faster, at_least=True),
                *(_median(tokens / sum(figures["seconds"]) for figures in side) for side in (ours, theirs)),
            )
        )
        memories.append(
            (
                f"`{name}`",
                *(f"{statistics.median(figures['peak'] for figures in side) / GIB:.2f}" for side in (ours, theirs)),
                _verdict(memory_ratios(found), case.memory, at_least=False),
                *(_spread((figures["start"] for figures in side), digits=1) for side in (ours, theirs)),
            )
        )
    about = [(f"`{name}`", SCENARIOS[name].about, _size(results[name])) for name in present]
    heads = ("scenario", "alignzoo, s a step", "TRL, s a step", "times faster", "alignzoo, tokens/s", "TRL, tokens/s")
    more = ("scenario", "alignzoo, peak GiB", "TRL, peak GiB", "ratio", "alignzoo, s to the first step", "TRL, s")
    return [
        *_notes(results.values()),
        *_table(("scenario", "what", "measured"), about),
        "",
        "Time of a step:",
        "",
        *_table(heads, times),
        "",
        "Memory of the process, and its start:",
        "",
        *_table(more, memories),
    ]


def _size(found: dict[str, Any]) -> str:
    steps = len(found["alignzoo"][0]["seconds"])
    tokens = statistics.mean(found["tokens"])
    rounds = f"{len(found['alignzoo'])} round" + ("s" if len(found["alignzoo"]) > 1 else "")
    return f"{rounds} of {steps} steps, {found['pairs']} pairs and {tokens:.0f} tokens a step"


def _notes(results: Iterable[dict[str, Any]]) -> list[str]:
    """Dates, machines, versions: a line for each set of them."""
    seen = []
    for found in results:
        names = [found["alignzoo"][0]["trainer"], found["trl"][0]["trainer"]]
        names += [f"{name} {number}" for name, number in found["versions"].items()]
        where = f"{found['threads']} threads of {found['machine']}"
        line = f"{found['date']}; {found['given']}; {where}; {', '.join(names)}."
        if line not in seen:
            seen.append(line)
    return [part for line in seen for part in (line, "")]


def _shares(results: dict[str, Any]) -> list[str]:
    lines = []
    for name, found in results.items():
        shares = [step["share"] for step in found["steps"]]
        rates = [step["rate"] for step in found["steps"]]
        counted = sum(step["flops"] for step in found["steps"])
        again = sum(step["again"] for step in found["steps"]) / counted
        what = f"{name}, {found['given']}, {found['threads']} threads, {found['date']}"
        lines += [
            f"Forward and backward of packed steps ({what}): {100 * statistics.median(shares):.0f} % of the rate of a",
            f"{found['size']}³ matrix product in the same process ({100 * min(shares):.0f}–{100 * max(shares):.0f} %",
            f"over {len(shares)} steps; aim {100 * found['aim']:.0f} %). That rate is",
            f"{statistics.median(rates) / 1e9:.0f} GFLOP/s. Of the operations, {100 * again:.0f} % are the head's",
            "second look at its logits, which saves their memory.",
        ]
    return ["", *lines] if lines else []


def _curves(results: dict[str, Any]) -> list[str]:
    lines = []
    for found in results.values():
        lines += ["", f"![{found['title']}](assets/{found['picture']})", "", f"{found['title']} ({found['date']}):", ""]
        sides = list(found["sides"])
        heads = [found["axis"], *(f"{side}, GiB" for side in sides), *(f"{side}, s a step" for side in sides)]
        rows = [
            (
                f"{point:,}",
                *(f"{found['sides'][side][i]['beyond'] / GIB:.2f}" for side in sides),
                *(f"{found['sides'][side][i]['seconds']:.2f}" for side in sides),
            )
            for i, point in enumerate(found["points"])
        ]
        lines += _table(heads, rows)
        if found.get("remark"):
            lines += ["", found["remark"]]
    return lines


def _table(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> list[str]:
    heads = list(heads)
    lines = [heads, ["---"] + ["---:"] * (len(heads) - 1), *map(list, rows)]
    return [f"| {' | '.join(line)} |" for line in lines]


def _spread(values: Iterable[float], digits: int = 2) -> str:
    given = list(values)
    return f"{statistics.median(given):.{digits}f} ({min(given):.{digits}f}–{max(given):.{digits}f})"


def _median(values: Iterable[float]) -> str:
    return f"{statistics.median(values):.0f}"


def _verdict(values: list[float], aim: float | None, *, at_least: bool) -> str:
    """The median, and what it should be."""
    median = statistics.median(values)
    if aim is None:
        return f"{median:.2f}"
    met = median >= aim if at_least else median <= aim
    return f"{median:.2f} (aim {'≥' if at_least else '≤'} {aim}{'' if met else ', missed'})"
