"""Forward and backward time of every way of packed attention, and of padded SDPA, on rows of several lengths.

    python benchmarks/attention.py [--device cuda] [--json FILE] [--tiny]

One attention layer without its projections, with the heads of Llama 3.2 1B and Llama 3.1 8B. *Dialogues* are pairs
whose prompt is as long as a response, *shared prompts* four responses of an eighth of the row's length after a prompt
of half of it. Padded rows hold every response after a prompt of its own; the ways take turns, and a figure is a median.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from alignzoo.data.pack import Pack, pack
from alignzoo.logprobs.attention import NARROW, CannotPack, packed_attention, varlen_function

SHAPES = {"1B": (32, 8, 64), "8B": (32, 8, 128)}
"""Heads, heads of keys and values, and their width."""
LENGTHS = (512, 2048, 8192)
TINY = ({"1B": (4, 2, 16)}, (96, 192))
REPEATS = 7


def dialogues(tokens: int) -> Pack:
    """Pairs of about 384 tokens each, prompt and responses of the same length."""
    pairs = max(1, tokens // 384)
    size = tokens // (3 * pairs)
    return pack([range(size)] * pairs, [[range(size)] * 2] * pairs)


def shared(tokens: int) -> Pack:
    """One prompt and four responses."""
    return pack([range(tokens // 2)], [[range(tokens // 8)] * 4])


DATA = {"dialogues": dialogues, "shared prompts": shared}


def of_ways(made: Pack, shape: tuple[int, int, int], device: str, dtype: torch.dtype) -> dict[str, Callable[[], Any]]:
    """Forward and backward of each way that exists here."""
    heads, fewer, width = shape
    size = made.input_ids.shape[1]
    layer = torch.nn.Module()
    inputs = [
        torch.randn(1, n, size, width, device=device, dtype=dtype).requires_grad_() for n in (heads, fewer, fewer)
    ]
    weight = torch.randn(1, size, heads, width, device=device, dtype=dtype)

    def packed(way: str) -> Callable[[], Any]:
        def run() -> Any:
            found, _ = packed_attention(layer, *inputs, None, scaling=width**-0.5, pack=made, way=way)
            return torch.autograd.grad((found * weight).sum(), inputs)

        return run

    ways = {"segments": packed("segments")}
    if device == "cuda":
        ways["flex"] = packed("flex")
        if dtype in NARROW:
            try:
                varlen_function()
                ways["varlen"] = packed("varlen")
            except CannotPack as error:
                print(error)
    return {"padded": padded(made, shape, device, dtype), **ways}


def padded(made: Pack, shape: tuple[int, int, int], device: str, dtype: torch.dtype) -> Callable[[], Any]:
    """SDPA on a row for each response, with a mask as of padded rows: as transformers calls it, which then repeats keys
    and values for the heads that share them (with a mask, CUDA has no fast kernel for fewer)."""
    heads, fewer, width = shape
    lengths = [segment.prompt + response for segment in made.segments for response in segment.responses]
    rows, longest = len(lengths), max(lengths)
    inputs = [
        torch.randn(rows, n, longest, width, device=device, dtype=dtype).requires_grad_() for n in (heads, fewer, fewer)
    ]
    at = torch.arange(longest, device=device)
    real = at < torch.tensor(lengths, device=device)[:, None]
    mask = (at[:, None] >= at) & real[:, None, None, :]
    weight = torch.randn(rows, heads, longest, width, device=device, dtype=dtype)

    def run() -> Any:
        query, *shared = inputs
        key, value = (part.repeat_interleave(heads // fewer, 1) for part in shared)
        found = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return torch.autograd.grad((found * weight).sum(), inputs)

    return run


def measured(ways: dict[str, Callable[[], Any]], device: str, repeats: int) -> dict[str, float]:
    """Median milliseconds of each way."""

    def wait() -> None:
        if device == "cuda":
            torch.cuda.synchronize()

    times: dict[str, list[float]] = {way: [] for way in ways}
    for turn in range(repeats + 2):
        for way, run in ways.items():
            wait()
            begin = time.perf_counter()
            run()
            wait()
            if turn >= 2:
                times[way].append(1000 * (time.perf_counter() - begin))
    return {way: statistics.median(of_way) for way, of_way in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--tiny", action="store_true", help="sizes that take seconds on a CPU")
    options = parser.parse_args()
    shapes, lengths = TINY if options.tiny else (SHAPES, LENGTHS)
    dtype = torch.bfloat16 if options.device == "cuda" else torch.float32
    print("| shape | rows | tokens | way | ms | relative to padded |\n| --- | --- | ---: | --- | ---: | ---: |")
    figures = []
    for name, shape in shapes.items():
        for data, make in DATA.items():
            for tokens in lengths:
                torch.manual_seed(0)
                ways = of_ways(make(tokens).to(options.device), shape, options.device, dtype)
                found = measured(ways, options.device, 2 if options.tiny else REPEATS)
                for way, took in found.items():
                    print(f"| {name} | {data} | {tokens} | {way} | {took:.2f} | {took / found['padded']:.2f}× |")
                figures.append({"shape": name, "rows": data, "tokens": tokens, "milliseconds": found})
    if options.json:
        card = torch.cuda.get_device_name() if options.device == "cuda" else "cpu"
        about = {"device": card, "torch": torch.__version__, "dtype": str(dtype)}
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps({**about, "figures": figures}, indent=1))


if __name__ == "__main__":
    main()
