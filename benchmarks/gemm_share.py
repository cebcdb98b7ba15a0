"""How close packed steps come to the machine's matrix products: ``python benchmarks/gemm_share.py --model MODEL``.

In one process: the rate of a large matrix product, forward and backward of a step, that rate again; then the same step
once more with its operations counted. The share is operations over seconds and rate. Matrix products are counted by
torch as they are carried out; of attention, what a causal mask leaves is counted, forward and backward (which looks at
the scores a second time, as kernels that do not keep them must).
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import report
from measured import Job
from workers import folder_of, measure, prepare, say

SIZE = 2048
AIM = 0.65
_ATTENTION = ("attention", "bmm")
"""What torch calls the operations of attention, which it counts as if there were no mask, where it knows them."""


def rate(size: int, attempts: int = 7) -> float:
    """Operations a second of an fp32 product of square matrices, at best."""
    import torch

    left, right, out = (torch.randn(size, size) for _ in range(3))
    best = float("inf")
    for _ in range(attempts):
        began = time.perf_counter()
        torch.mm(left, right, out=out)
        best = min(best, time.perf_counter() - began)
    return 2 * size**3 / best


def products(step: Any) -> int:
    """Operations of the matrix products outside attention that calling ``step`` carries out."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        step()
    counts = counter.get_flop_counts()["Global"]
    return sum(count for name, count in counts.items() if not any(word in str(name) for word in _ATTENTION))


def attention(config: Any, pack: Any) -> int:
    """Operations of attention over packed rows, forward and backward: two products and five.

    A position sees those before it, of its own response and of the prompt, and itself.
    """
    seen = sum(
        _triangle(s.prompt) + sum(size * s.prompt + _triangle(size) for size in s.responses) for s in pack.segments
    )
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return int((2 + 5) * 2 * seen * width * config.num_attention_heads * config.num_hidden_layers)


def _triangle(length: int) -> int:
    return length * (length + 1) // 2


def second_look(model: Any, responses: int) -> int:
    """Operations of the logits that the head computes again in its backward pass, instead of keeping them, in fp32."""
    from alignzoo.logprobs.head import KEPT

    vocabulary, width = model.get_output_embeddings().weight.shape
    return 2 * responses * vocabulary * width if responses * vocabulary * 4 > KEPT else 0


def in_process(job: Job) -> list[dict[str, float]]:
    """The steps of a loop as :mod:`steps_alignzoo` sets it up."""
    from steps_alignzoo import loop_of

    from alignzoo.logprobs.logps import innermost
    from alignzoo.step.context import StepContext

    loop = loop_of(job)
    model = innermost(loop.engine.model)
    loop.engine.model.train()
    found = []
    for step in range(job.steps + 1):
        batches = loop.batches(step)
        references = [loop.reference(batch) for batch in batches] if loop.reference else [None] * len(batches)
        context = StepContext(loop.engine, batches, references, step)

        def forward_and_backward(context: Any = context) -> None:
            loop.controller.step(context)

        before = rate(SIZE)
        began = time.perf_counter()
        forward_and_backward()
        seconds = time.perf_counter() - began
        mean = (before + rate(SIZE)) / 2  # a machine that others use as well changes its speed on the way
        loop.optimizer.zero_grad(set_to_none=True)
        flops = products(forward_and_backward)
        loop.optimizer.zero_grad(set_to_none=True)
        flops += sum(attention(model.config, batch.pack) for batch in batches)
        again = sum(second_look(model, len(batch.pack.targets)) for batch in batches)
        share = flops / seconds / mean
        found.append({"flops": flops, "again": again, "seconds": seconds, "rate": mean, "share": share})
    return found[1:]  # the first is for warming up


def main() -> None:
    """Measure, keep, show."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", default="SmolLM2-135M-Instruct.Q4_1.gguf", help="anything that alignzoo run takes")
    parser.add_argument("--data", default="hh-rlhf-harmless-base-test.jsonl.gz", help="likewise")
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--env", default="build/benchmarks", help="folder of models and results")
    parser.add_argument("--json", type=Path, help="results [default: results.json in the --env folder]")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="put all results into a page, too")
    arguments = parser.parse_args()
    folder = folder_of(arguments.env, arguments.model, arguments.data)
    say("models and tokens")
    count = 4 * (arguments.steps + 1)
    prepare(folder, "--model", arguments.model, "--data", arguments.data, "--scenario", f"hh-cached={count}")
    job = {
        "model": str(folder / "models" / "given"),
        "tokens": str(folder / "hh-cached.json"),
        "pairs": 4,
        "steps": arguments.steps,
        "max_length": 1024,
        "cached": True,
        "precision": "fp32",
        "lora": 0,
        "threads": arguments.threads,
    }
    steps = measure(sys.executable, "gemm_share.py", job, "gemm share")["steps"]
    for step in steps:
        say(f"{100 * step['share']:.1f} % of {step['rate'] / 1e9:.0f} GFLOP/s, {step['seconds']:.2f} s")
    results = {"steps": steps, "size": SIZE, "aim": AIM, "threads": arguments.threads}
    file = arguments.json or report.default_file(arguments.env)
    report.keep(file, "gemm", "dialogues, fp32", {**results, "given": Path(arguments.model).name})
    print(report.text(file, arguments.write))


if __name__ == "__main__":
    if "--began" in sys.argv:  # a worker
        given, _ = Job.from_command_line()
        print(json.dumps({"steps": in_process(given)}))
    else:
        main()
