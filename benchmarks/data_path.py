"""Time and memory of the data path at scale: ``python benchmarks/data_path.py --pairs 1000000``.

Writes synthetic pairs to one ``.jsonl`` and takes them to the first batch twice, each time in a new process on caches
of its own: the first pass reads and tokenises everything, the second finds it in the caches. Seconds count from the
start of the process, imports included; where pages of files are mapped by several processes, ``all processes`` counts
them once (PSS), and ``main`` and ``workers`` are what each of them had at its peak (RSS). Linux only.

Budget for a million pairs: 1.5 GB over all processes on both passes, 10 s to the first batch of the second.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

MB = 1e6
INTERVAL = 0.1  # seconds between two looks at the memory
SYLLABLES = ["ba", "co", "den", "fir", "gu", "hal", "in", "jo", "ker", "lu", "mon", "ne", "or", "pi", "qua", "ris"]


def write_pairs(path: Path, pairs: int, seed: int = 0) -> None:
    """Prompts of 10 to 40 words, about one in fifty of them used before, and replies of 5 to 40."""
    draw = random.Random(seed)
    words = ["".join(draw.choices(SYLLABLES, k=draw.randint(1, 4))) for _ in range(20_000)]
    weights = list(itertools.accumulate(1 / rank for rank in range(1, len(words) + 1)))  # Zipf's law, as in real text
    recent: list[str] = []

    def text(least: int, most: int) -> str:
        return " ".join(draw.choices(words, cum_weights=weights, k=draw.randint(least, most)))

    with path.open("w", encoding="utf-8") as lines:
        for _ in range(pairs):
            prompt = draw.choice(recent) if recent and draw.random() < 0.02 else f"{text(10, 40)}?"
            recent = [*recent[-99:], prompt]
            row = {"prompt": prompt, "chosen": f" {text(5, 40)}.", "rejected": f" {text(5, 40)}!"}
            lines.write(json.dumps(row) + "\n")


def one_pass(file: str, model: str, workers: int | None, began: float) -> dict[str, float]:
    """In a process of its own: from nothing to the first batch, as a run does it."""
    seconds: dict[str, float] = {}

    def note(stage: str) -> None:
        seconds[stage] = time.time() - began

    from alignzoo.data.collate import batch_columns, batches_of
    from alignzoo.data.parts import load_parts
    from alignzoo.data.stream import PairStream
    from alignzoo.model.load import load_tokenizer
    from alignzoo.model.source import find_model
    from alignzoo.plan.settings import Settings
    from alignzoo.report import Reporter

    note("imports")
    settings = Settings(model=model, data=file, data_workers=workers)
    tokenizer = load_tokenizer(find_model(model), settings)
    note("tokenizer")
    parts = load_parts(settings, tokenizer, needs=(), report=Reporter())
    note("parts")
    stream = PairStream(len(parts.train), settings.batch_size, settings.seed)
    first, size = stream.indices(0), settings.micro_batch_size
    batches = batches_of(batch_columns(parts.train), first, size, tokenizer.pad_token_id, shape=parts.shape)
    next(batches)
    note("first batch")
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    peak = next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM"))
    return {**seconds, "main": peak / MB}


class Memory(threading.Thread):
    """The largest sums over a process and its children that were seen."""

    def __init__(self, process: int) -> None:
        super().__init__(daemon=True)
        self.process, self.done = process, threading.Event()
        self.together = self.workers = 0.0

    def run(self) -> None:
        import psutil

        while not self.done.wait(INTERVAL):
            try:
                main = psutil.Process(self.process)
                family = [main, *main.children(recursive=True)]
                shares = [_memory(member) for member in family]
            except psutil.Error:
                continue
            self.together = max(self.together, sum(pss for pss, _ in shares) / MB)
            self.workers = max([self.workers, *(rss / MB for _, rss in shares[1:])])


def _memory(process: Any) -> tuple[int, int]:
    import psutil

    try:
        info = process.memory_full_info()
    except psutil.Error:  # it has ended
        return 0, 0
    return info.pss, info.rss


def measure(file: Path, cache: Path, arguments: argparse.Namespace) -> dict[str, float]:
    """One pass on the caches in ``cache``."""
    caches = {"HF_HOME": cache / "hf", "HF_DATASETS_CACHE": cache / "datasets", "ALIGNZOO_CACHE": cache / "alignzoo"}
    words = [sys.executable, __file__, "--one-pass", str(file), "--model", arguments.model]
    if arguments.workers is not None:
        words += ["--workers", str(arguments.workers)]
    environment = {**os.environ, **{name: str(path) for name, path in caches.items()}}
    process = subprocess.Popen(
        [*words, "--began", repr(time.time())], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    memory = Memory(process.pid)
    memory.start()
    output, errors = process.communicate()
    memory.done.set()
    memory.join()
    if process.returncode:
        sys.exit(errors.decode())
    figures: dict[str, float] = json.loads(output.decode().splitlines()[-1])
    stored = sum(entry.stat().st_size for entry in cache.rglob("*") if entry.is_file())
    return {**figures, "workers": memory.workers, "all processes": memory.together, "caches": stored / MB}


def show(passes: dict[str, dict[str, float]], pairs: int, size: float) -> None:
    """The table."""
    print(f"{pairs} pairs, {size:.0f} MB")
    print(f"{'':24s}" + "".join(f"{name:>10s}" for name in passes))
    for stage in ("imports", "tokenizer", "parts", "first batch"):
        print(f"{f's until {stage}':24s}" + "".join(f"{figures[stage]:10.1f}" for figures in passes.values()))
    for what in ("main", "workers", "all processes", "caches"):
        label = "MB on disk, caches" if what == "caches" else f"MB at most, {what}"
        print(f"{label:24s}" + "".join(f"{figures[what]:10.0f}" for figures in passes.values()))
    first = passes["first"]
    print(f"pairs/s of the first pass: {pairs / (first['parts'] - first['tokenizer']):.0f}")


def main() -> None:
    """Write the file, take both passes, print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--pairs", type=int, default=100_000)
    parser.add_argument("--model", default="sandbox", help="whose tokenizer")
    parser.add_argument("--workers", type=int, help="processes that tokenise")
    parser.add_argument("--folder", type=Path, help="keep the file and the caches here; a file that is there is used")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument("--one-pass", metavar="FILE", help=argparse.SUPPRESS)
    parser.add_argument("--began", type=float, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one_pass:
        print(json.dumps(one_pass(arguments.one_pass, arguments.model, arguments.workers, arguments.began)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / f"pairs-{arguments.pairs}.jsonl"
        if not file.exists():
            write_pairs(file, arguments.pairs)
        with tempfile.TemporaryDirectory(prefix="caches-", dir=folder) as cache:
            passes = {name: measure(file, Path(cache), arguments) for name in ("first", "second")}
        size = file.stat().st_size / MB
    if arguments.json:
        print(json.dumps({"pairs": arguments.pairs, "MB": size, **passes}))
    else:
        show(passes, arguments.pairs, size)


if __name__ == "__main__":
    main()
