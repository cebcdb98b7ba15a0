"""One launched rank: process group, DDP, shards and their checkpoints, which a single card can show.

As a program, ``rank.py ddp|fsdp WORD ...`` under torchrun, it is ``alignzoo WORD ...`` as a rank of such a launch also
where it is the only one, which a run by itself would take for no launch at all.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

WAYS = ("ddp", "fsdp")
STEPS = 3


def rank(*, cpu: bool) -> dict[str, Any]:
    """A run as one rank of torchrun's, replicated and sharded, and its last step again from its checkpoint: the losses
    of one process."""
    from commands import CLOSE
    from shapes import device_of

    device_of(cpu)
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(1 if cpu else 3) as beside:
        ways = ("alone", *(WAYS[-1:] if cpu else WAYS))  # on a CPU, another part has the other one
        found = dict(zip(ways, beside.map(lambda way: _losses(way, Path(folder)), ways), strict=True))
    alone = found["alone"]
    gaps = {way: max(abs(a - b) for a, b in zip(found[way], alone + alone[-1:], strict=True)) for way in ways[1:]}
    far = [way for way, gap in gaps.items() if not gap <= CLOSE]
    if far:
        raise SystemExit(f"not the losses of one process: {', '.join(far)}; {found}")
    shown = ", ".join(f"{way} on one rank, resumed: losses of one process to {gap:.0e}" for way, gap in gaps.items())
    return {"losses": found, "gaps": gaps, "shown": shown}


def _losses(way: str, folder: Path) -> list[float]:
    """Of each step, and of a rank once more that of the last one, after a resume."""
    out = folder / way
    short = ["--max-steps", str(STEPS), "--batch-size", "8", "--micro-batch-size", "4", "--eval-pairs", "4"]
    said = ["run", "--loss", "dpo", "--lr", "1e-4", "--precision", "fp32", "--no-samples", "--save-every", "1", *short]
    _run(way, [*said, "--out", str(out)])
    losses = _logged(out)
    if way == "alone":
        return losses
    if way == "fsdp" and not list(out.glob("checkpoints/*/shard-*")):
        raise RuntimeError("the checkpoints are not sharded")
    shutil.rmtree(max((out / "checkpoints").iterdir()))
    (out / "result.json").unlink()
    _run(way, ["run", "--resume", str(out)])
    return losses + _logged(out)[-1:]


def _run(way: str, words: list[str]) -> None:
    from commands import spoken

    module = [sys.executable, "-m"]
    if way == "alone":
        spoken([*module, "alignzoo", *words], OMP_NUM_THREADS="1")
        return
    torchrun = [*module, "torch.distributed.run", "--standalone", "--nproc-per-node", "1"]
    spoken([*torchrun, str(Path(__file__)), way, *words], OMP_NUM_THREADS="1")


def _logged(folder: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


def main() -> None:
    """Be a rank."""
    from alignzoo.distributed import launch

    way, *words = sys.argv[1:]
    launch.distributed_backend = lambda: way  # before anything reads it
    from alignzoo.cli.main import main as alignzoo

    sys.argv = ["alignzoo", *words]
    alignzoo()


if __name__ == "__main__":
    main()
