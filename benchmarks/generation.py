"""Greedy responses by alignzoo's generation against lm-eval's ``HFLM.generate_until``, on one loaded model.

    python benchmarks/generation.py --model MODEL [--data PROMPTS.txt] [--prompts 200] [--tokens 64] [--threads N]

Both get the same prompts (with the chat template, if the tokenizer has one) in the same dtype. HFLM runs at each of
``--batch-sizes``; the ratio is against its fastest. Rounds alternate between all of them; the median counts.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

OURS = "alignzoo"


def main() -> None:
    """Run the benchmark and print its table."""
    args = _arguments()
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from alignzoo.generate.prompts import Prompting

    torch.set_num_threads(args.threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    name = _path(args.model)
    model = AutoModelForCausalLM.from_pretrained(name, dtype=args.dtype).to(device).eval()
    tokenizer = AutoTokenizer.from_pretrained(name)
    prompting = Prompting(tokenizer)
    texts = [prompting.text([{"role": "user", "content": request}]) for request in _requests(args)]
    sizes = sorted(len(prompting.encode(text)) for text in texts)
    print(
        f"{args.model}, {args.dtype} on {device}, {args.threads} threads, load {os.getloadavg()[0]:.1f}: "
        f"{len(texts)} prompts of {sizes[0]} to {sizes[-1]} tokens (median {sizes[len(sizes) // 2]}) x {args.tokens}"
    )
    runs: dict[str, Callable[[], list[str]]] = {OURS: lambda: _alignzoo(model, tokenizer, prompting, texts, args)}
    for size in args.batch_sizes:
        runs[f"HFLM {size}"] = lambda size=size: _harness(model, tokenizer, texts, args.tokens, size)
    _report(runs, args, tokenizer)


def _report(runs: dict[str, Callable[[], list[str]]], args: argparse.Namespace, tokenizer: Any) -> None:
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    made: dict[str, list[str]] = {}
    for _ in range(args.rounds):
        for name, run in runs.items():
            start = time.perf_counter()
            made[name] = run()
            seconds[name].append(time.perf_counter() - start)
            print(f"  {name}: {seconds[name][-1]:.1f} s, load {os.getloadavg()[0]:.1f}", flush=True)
    median = {name: statistics.median(times) for name, times in seconds.items()}
    best = min((name for name in runs if name != OURS), key=median.__getitem__)
    print("| | seconds | tokens/s | against HFLM's best | same text |\n| --- | --: | --: | --: | --: |")
    for name in runs:
        tokens = sum(len(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in made[name])
        same = sum(a == b for a, b in zip(made[name], made[OURS], strict=True))
        ratio = median[best] / median[name]
        print(f"| {name} | {median[name]:.1f} | {tokens / median[name]:.1f} | {ratio:.2f} | {same}/{len(made[name])} |")


def _alignzoo(model: Any, tokenizer: Any, prompting: Any, texts: list[str], args: argparse.Namespace) -> list[str]:
    from alignzoo.generate.batched import generate
    from alignzoo.generate.decoding import Decoding

    ids = [prompting.encode(text) for text in texts]
    made = dict(generate(model, tokenizer, ids, Decoding(args.tokens), batch_size=args.batch_size))
    return [made[index].text for index in range(len(ids))]


def _harness(model: Any, tokenizer: Any, texts: list[str], tokens: int, batch_size: int) -> list[str]:
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    lm = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=batch_size)
    settings = {"until": [], "max_gen_toks": tokens, "do_sample": False}
    requests = [
        Instance(request_type="generate_until", doc={}, arguments=(text, settings), idx=index)
        for index, text in enumerate(texts)
    ]
    return list(lm.generate_until(requests, disable_tqdm=True))


def _requests(args: argparse.Namespace) -> list[str]:
    """One request a line (JSON strings, or plain text); the sandbox's own by default."""
    if args.data is None:
        from alignzoo_sandbox import prompts

        return [prompt.messages[-1]["content"] for prompt in prompts("test", args.prompts)]
    lines = Path(args.data).read_text(encoding="utf-8").splitlines()[: args.prompts]
    return [json.loads(line) if line.startswith('"') else line for line in lines]


def _path(model: str) -> Any:
    if model != "sandbox":
        return model
    from alignzoo_sandbox import MODEL_PATH

    return MODEL_PATH


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="sandbox")
    parser.add_argument("--data", help="a file with one request a line")
    parser.add_argument("--prompts", type=int, default=200)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--batch-size", type=int, help="alignzoo's; by default it chooses")
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[8, 16, 32, 64], help="HFLM's")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--dtype", default="float32")
    return parser.parse_args()


if __name__ == "__main__":
    main()
