"""Errors and times of the head's ways to log-probs and their gradients.

Errors are against float64 of the same bf16 numbers: of logits rounded to bf16, as a product that gives bf16 makes them,
of alignzoo's head, and of the same in fp32. Times are of a forward and backward pass; the ways alternate, and each
way's best counts. Ways that are not installed or not made for the device are left out and named.

    python benchmarks/head.py --device cuda --json head.json
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F

SHAPES = {"SmolLM2-135M": (576, 49152), "1B": (2048, 128256), "8B": (4096, 128256)}
"""Width and vocabulary."""
TOKENS = {"cpu": 350, "cuda": 8192}
TINY = {"tiny": (64, 3000)}
ROUNDS = {"cpu": 3, "cuda": 4}
Found = tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]
"""Log-probs, and their gradients by hidden states and weight."""


@dataclass(frozen=True)
class Case:
    """Inputs of a head: ``(K, H)`` bf16, ``(V, H)`` fp32 whose numbers are exact in bf16, ``(K,)`` twice."""

    hidden: torch.Tensor
    weight: torch.Tensor
    targets: torch.Tensor
    cotangents: torch.Tensor

    @classmethod
    def drawn(cls, shape: tuple[int, int], count: int, device: str) -> Case:
        """Logits with a spread of 4, as a model's; half the targets stand out by up to 20, as likely tokens do."""
        width, vocabulary = shape
        draw = torch.Generator(device).manual_seed(0)
        options: dict[str, Any] = {"generator": draw, "device": device}
        weight = torch.randn(vocabulary, width, **options).mul_(width**-0.5).bfloat16().float()
        targets = torch.randint(vocabulary, (count,), **options)
        hidden = 4 * torch.randn(count, width, **options)
        hidden[::2] += torch.linspace(5, 20, len(hidden[::2]), device=device)[:, None] * weight[targets[::2]]
        return cls(hidden.bfloat16(), weight, targets, torch.randn(count, **options))


def rounded(hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Log-probs of whole logits, by ``F.linear`` in the dtype of the hidden states."""
    logits = F.linear(hidden, weight.to(hidden.dtype))
    return -F.cross_entropy(logits.to(torch.promote_types(logits.dtype, torch.float32)), targets, reduction="none")


def by_alignzoo(
    hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor, *, chunk: int | None = None
) -> torch.Tensor:
    """Log-probs of alignzoo's head, its products in the dtype of the hidden states; ``chunk`` logits at a time."""
    from alignzoo.logprobs.head import token_logps

    with torch.autocast(hidden.device.type, torch.bfloat16, enabled=hidden.dtype == torch.bfloat16):
        return token_logps(hidden, weight, targets, chunk=chunk)[0]


def by_torch_alone(hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """The same without the kernel."""
    from alignzoo.logprobs import head
    from alignzoo.logprobs.softmax import by_torch

    with patch.object(head, "_by_logits", lambda *_: by_torch):
        return by_alignzoo(hidden, weight, targets)


def by_kernel_alone(hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """The same with the kernel, chosen or not."""
    from alignzoo.logprobs import head
    from alignzoo.logprobs.softmax_kernel import by_kernel

    with patch.object(head, "_by_logits", lambda *_: by_kernel):
        return by_alignzoo(hidden, weight, targets)


def by_cut_cross_entropy(hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Apple's, without its filter of small gradients."""
    from cut_cross_entropy import linear_cross_entropy

    return -linear_cross_entropy(hidden, weight.to(hidden.dtype), targets, reduction="none", filter_eps=None)


def by_liger(hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Liger's fused linear cross-entropy, which computes its logits again in the backward pass if losses are a
    token's each."""
    from liger_kernel.transformers import LigerFusedLinearCrossEntropyLoss

    loss = LigerFusedLinearCrossEntropyLoss(reduction="none", accum_dtype=torch.float32)
    return -loss(weight.to(hidden.dtype), hidden, targets)


Way = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


def ways_of(device: str) -> tuple[dict[str, Way], list[str]]:
    """Ways in bf16 by name, and why others are left out."""
    ways: dict[str, Way] = {"whole logits in bf16": rounded, "alignzoo": by_alignzoo}
    others: dict[str, tuple[str, Way]] = {
        "alignzoo, kernel": ("triton", by_kernel_alone),
        "cut-cross-entropy": ("cut_cross_entropy", by_cut_cross_entropy),
        "Liger": ("liger_kernel", by_liger),
    }
    if device == "cpu":
        return ways, [f"{name}: for CUDA" for name in others]
    ways["alignzoo, PyTorch"] = by_torch_alone
    ways |= {f"alignzoo, 2^{power} logits at a time": partial(by_alignzoo, chunk=1 << power) for power in (24, 28)}
    missing = {name for name, (package, _) in others.items() if find_spec(package) is None}
    ways |= {name: way for name, (_, way) in others.items() if name not in missing}
    return ways, [f"{name}: not installed" for name in sorted(missing)]


def ran(way: Way, case: Case, dtype: torch.dtype, *, frozen: bool = False) -> Found:
    """A pass forward and backward, with hidden states of ``dtype``."""
    hidden = case.hidden.detach().to(dtype).requires_grad_()
    weight = case.weight.to(torch.promote_types(dtype, torch.float32)).detach().requires_grad_(not frozen)
    values = way(hidden, weight, case.targets)
    (values * case.cotangents).sum().backward()
    return values.detach(), hidden.grad, weight.grad


def errors(found: Found, exact: Found) -> dict[str, float]:
    """Root mean square and largest of the log-probs' errors in nats; of gradients, relative to their norm."""
    off = found[0].double() - exact[0]
    row = {"logps": off.square().mean().sqrt().item(), "largest": off.abs().max().item()}
    for name, one, other in zip(("hidden", "weight"), found[1:], exact[1:], strict=True):
        assert one is not None
        assert other is not None
        row[name] = ((one.double() - other).norm() / other.norm()).item()
    return row


def in_bf16(name: str) -> str:
    return name if "bf16" in name else f"{name}, bf16"


def measured_errors(case: Case, ways: dict[str, Way]) -> dict[str, Any]:
    """Of each way in bf16, and of alignzoo's in fp32; a way that fails says why."""
    exact = ran(rounded, case, torch.float64)
    runs = {in_bf16(name): (way, torch.bfloat16) for name, way in ways.items()}
    runs["alignzoo, fp32"] = (by_alignzoo, torch.float32)
    return {name: tried(lambda run=run: errors(ran(run[0], case, run[1]), exact)) for name, run in runs.items()}


def tried(measure: Callable[[], Any]) -> Any:
    try:
        return measure()
    except Exception as error:  # a compiler's, or another package's
        return (str(error).strip() or type(error).__name__).splitlines()[0]


def measured_times(case: Case, ways: dict[str, Way], device: str) -> dict[str, Any]:
    """Milliseconds of each way with a trained and a frozen head: of the clock; on a CPU also of its threads."""
    runs = {in_bf16(name): (way, torch.bfloat16) for name, way in ways.items()}
    runs["alignzoo, fp32"] = (by_alignzoo, torch.float32)
    best: dict[tuple[str, bool], Any] = {}
    for _ in range(ROUNDS[device] + 1):
        for name, frozen in ((name, frozen) for name in runs for frozen in (False, True)):
            before = best.get((name, frozen), (float("inf"),) * 3)
            if not isinstance(before, str):
                way, dtype = runs[name]
                taken = tried(lambda way=way, dtype=dtype, frozen=frozen: timed(way, case, dtype, frozen=frozen))
                best[name, frozen] = taken if isinstance(taken, str) else tuple(map(min, taken, before))
    rows: dict[str, Any] = {}
    for (name, frozen), value in best.items():
        words = dict(zip(("ms", "cpu_ms", "peak_mib"), value, strict=True)) if not isinstance(value, str) else value
        rows.setdefault(name, {})["frozen" if frozen else "trained"] = words
    return rows


def timed(way: Way, case: Case, dtype: torch.dtype, *, frozen: bool) -> tuple[float, float, float]:
    """Milliseconds, milliseconds of the process's threads, and on a GPU MiB at most beside the inputs."""
    on_a_gpu = case.hidden.device.type == "cuda"
    if on_a_gpu:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    held = torch.cuda.memory_allocated() if on_a_gpu else 0
    began, threads = time.perf_counter(), time.process_time()
    ran(way, case, dtype, frozen=frozen)
    if on_a_gpu:
        torch.cuda.synchronize()
    peak = torch.cuda.max_memory_allocated() - held if on_a_gpu else 0
    return (time.perf_counter() - began) * 1e3, (time.process_time() - threads) * 1e3, peak / 2**20


def error_table(name: str, rows: dict[str, Any]) -> str:
    head = f"| {name} | log-probs, rms | largest | gradient by hidden | by weight |"
    lines = [head, "| --- | ---: | ---: | ---: | ---: |"]
    for way, row in rows.items():
        cells = [row, "", "", ""] if isinstance(row, str) else [f"{value:.1e}" for value in row.values()]
        lines.append(f"| {way} | {' | '.join(cells)} |")
    return "\n".join(lines)


def time_table(name: str, rows: dict[str, Any]) -> str:
    head = f"| {name} | trained head, ms | CPU ms | peak MiB | frozen head, ms | CPU ms | peak MiB |"
    lines = [head, "| --- " + "| ---: " * 6 + "|"]
    for way, row in rows.items():
        cells = []
        for value in row.values():
            cells += (
                [value, "", ""]
                if isinstance(value, str)
                else [f"{number:.0f}" if number else "–" for number in value.values()]
            )
        lines.append(f"| {way} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main(words: Sequence[str] | None = None) -> None:
    from alignzoo.logprobs.softmax import chosen

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--tiny", action="store_true", help="sizes that take seconds on a CPU")
    parser.add_argument("--shape", nargs="*", choices=list(SHAPES), help="those alone")
    arguments = parser.parse_args(words)
    device, tiny = arguments.device, arguments.tiny
    ways, left_out = ways_of(device)
    place = torch.device(device, torch.cuda.current_device() if device == "cuda" else None)
    why = chosen(place, torch.bfloat16).why
    shapes = TINY if tiny else {name: SHAPES[name] for name in arguments.shape or SHAPES}
    figures: dict[str, Any] = {"device": device, "chosen": why, "left_out": left_out, "torch": torch.__version__}
    print(f"chosen on {device}: {why}; left out: {'; '.join(left_out) or 'nothing'}\n", flush=True)
    for name, shape in shapes.items():
        count = 60 if tiny else TOKENS[device]
        few = Case.drawn(shape, min(count, 350), device)
        found = {"shape": shape, "tokens": count, "errors": measured_errors(few, ways)}
        print(error_table(f"{name}, {len(few.targets)} tokens", found["errors"]), flush=True)
        del few
        found["times"] = measured_times(Case.drawn(shape, count, device), ways, device)
        print(f"\n{time_table(f'{name}, {count} tokens', found['times'])}\n", flush=True)
        figures[name] = found
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
