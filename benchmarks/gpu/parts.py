"""The parts of the GPU check, by name: ``parts.py NAME [WORD ...] [--cpu]``; figures are the last line, as JSON.

Models are configs with random weights; ``--cpu`` takes tiny ones, to try the code where there is no GPU.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from alignzoo.data.collate import TokenBatch

Figures = dict[str, Any]
GIB = 2**30
STEPS = 5
SHAPES: dict[str, dict[str, Any]] = {
    "1b": {
        "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32,
        "num_key_value_heads": 8, "vocab_size": 128256, "tie_word_embeddings": True,
    },
    "8b": {
        "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32,
        "num_key_value_heads": 8, "vocab_size": 128256, "tie_word_embeddings": False,
    },
    "tiny": {
        "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "vocab_size": 1024, "tie_word_embeddings": True,
    },
}  # fmt: skip
"""The first two are those of Llama-3.2-1B and Llama-3.1-8B."""
PACKED: dict[str, Any] = {
    "hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 512, "max_position_embeddings": 4096, "pad_token_id": 0,
}  # fmt: skip
MHA = {**PACKED, "num_key_value_heads": 4}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaConfig", PACKED),
    "qwen3": ("Qwen3Config", {**PACKED, "head_dim": 64}),
    "mistral, window": ("MistralConfig", {**PACKED, "sliding_window": 96}),
    "phi3": ("Phi3Config", MHA),
    "gemma3": ("Gemma3TextConfig", {**PACKED, "head_dim": 64, "sliding_window": 96}),
    "gpt-neox": ("GPTNeoXConfig", {k: v for k, v in PACKED.items() if k != "num_key_value_heads"}),
}


def device_of(cpu: bool) -> str:
    """Where the part runs.

    Raises:
        SystemExit: on a GPU, and there is none.
    """
    import torch

    if not cpu and not torch.cuda.is_available():
        raise SystemExit("no CUDA device: give --cpu to try the check without one")
    return "cpu" if cpu else "cuda"


def tests(*, cpu: bool) -> Figures:
    """The tests marked gpu; on a CPU their uncompiled kin."""
    device_of(cpu)
    marked = sorted(str(f) for f in (ROOT / "tests").rglob("test_*.py") if "pytest.mark.gpu" in f.read_text())
    which = ["-k", "flex_attention"] if cpu else ["-m", "gpu"]
    words = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *which, *marked]
    ended = subprocess.run(words, capture_output=True, text=True, cwd=ROOT)
    closing = [line for line in ended.stdout.splitlines() if re.search(r"\b(passed|failed|skipped|error)", line)]
    if ended.returncode:
        print(ended.stdout[-3000:], ended.stderr[-1000:])
        raise SystemExit(1)
    return {"shown": closing[-1] if closing else ""}


def random_pairs(count: int, vocabulary: int, prompt: tuple[int, int], response: tuple[int, int]) -> list[Any]:
    """``(prompt, chosen, rejected)`` token ids of random lengths within the bounds, the same on every machine."""
    draw = random.Random(0)

    def tokens(bounds: tuple[int, int]) -> list[int]:
        return [draw.randrange(3, vocabulary) for _ in range(draw.randint(*bounds))]

    return [(tokens(prompt), tokens(response), tokens(response)) for _ in range(count)]


def packing(*, cpu: bool) -> Figures:
    """Packed against padded log-probs and gradients: six families, fp32 and bf16, errors measured from fp32 padded."""
    device = device_of(cpu)
    rows = {}
    failures = []
    for family in FAMILIES:
        for precision in ("fp32", "bf16"):
            try:
                found = packed_against_padded(family, precision, device)
            except Exception as error:  # one family's fault is not the others'
                found = {"error": f"{type(error).__name__}: {error}"[:300]}
            rows[f"{family}, {precision}"] = found
            good = "error" not in found and all(found[what] <= found["bounds"][what] for what in ("packed", "gradient"))
            if not good:
                failures.append(f"{family}, {precision}")
            print(family, precision, found, flush=True)
    worst = {p: max((r.get("packed", math.inf) for n, r in rows.items() if n.endswith(p)), default=0.0) for p in DTYPES}
    print(json.dumps({"rows": rows}))
    if failures:
        raise SystemExit(f"not as padded: {'; '.join(failures)}")
    return {"rows": rows, "shown": ", ".join(f"{p}: largest difference {gap:.1e}" for p, gap in worst.items())}


DTYPES = ("fp32", "bf16")


def packed_against_padded(family: str, precision: str, device: str) -> Figures:
    """Relative differences of the packed path: from the padded one in fp32; in bf16 from padded fp32, and bounded by
    three times what padded bf16 has."""
    import torch
    import transformers

    from alignzoo.logprobs.forward import choose_forward, leave_packing
    from alignzoo.logprobs.logps import padded_logps

    kind, shape = FAMILIES[family]
    torch.manual_seed(0)
    config = getattr(transformers, kind)(**shape)
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32).to(device).eval()
    batch = batch_of(random_pairs(6, shape["vocab_size"], (40, 300), (10, 200)), device)
    autocast = torch.bfloat16 if precision == "bf16" else None

    def measured(forward: Any, dtype: Any) -> tuple[torch.Tensor, torch.Tensor]:
        model.zero_grad()
        with torch.autocast(device, dtype or torch.bfloat16, enabled=dtype is not None):
            logps = forward(model, batch).logps
        (logps[::2] - logps[1::2]).sum().backward()
        gradient = torch.cat([w.grad.flatten().float() for w in model.parameters() if w.grad is not None])
        return logps.detach().double(), gradient.double()

    def gap(one: torch.Tensor, other: torch.Tensor) -> float:
        return float((one - other).norm() / other.norm())

    exact = measured(padded_logps, None)
    padded = measured(padded_logps, autocast)
    choice = choose_forward(model, batch, autocast=autocast)
    if not choice.packed:
        raise RuntimeError(choice.why)
    packed = measured(choice.forward, autocast)
    leave_packing(model)
    noise = [3 * gap(ours, true) for ours, true in zip(padded, exact, strict=True)]
    bounds = [1e-4, 1e-4] if autocast is None else noise
    return {
        "why": choice.why,
        "packed": gap(packed[0], exact[0]),
        "gradient": gap(packed[1], exact[1]),
        "bounds": {"packed": bounds[0], "gradient": bounds[1]},
    }


def batch_of(pairs: Sequence[Any], device: str) -> TokenBatch:
    """The pairs as one micro-batch."""
    from alignzoo.data.collate import collate

    rows = [{"row_id": i, "prompt_ids": prompt, "response_ids": replies} for i, (prompt, *replies) in enumerate(pairs)]
    return collate(rows, pad_id=0, shape="pairs").to(device)


def methods(*, cpu: bool) -> Figures:
    """Two steps of every geometry and every wrapper; with --cpu, of two of each."""
    import alignzoo
    from alignzoo.contract.card import Card

    device_of(cpu)
    lines: list[tuple[str, Figures]] = []
    for card in alignzoo.list_methods("geometry"):
        if isinstance(card, Card):
            often = {"interval": 1} if "interval" in card.options.model_fields else {}
            lines.append((card.name, {"geometry": {"name": card.name, **often}}))
    lines += [(c.name, {"robust": c.name}) for c in alignzoo.list_methods("robust") if isinstance(c, Card)]
    lines = lines[:2] + lines[-2:] if cpu else lines
    failed, seconds = {}, {}
    for name, words in lines:
        began = time.perf_counter()
        try:
            run_sandbox({**words, "max-steps": 2, **needs_of(name)})
        except Exception as error:
            failed[name] = f"{type(error).__name__}: {error}"[:400]
        seconds[name] = round(time.perf_counter() - began, 2)
        print(name, failed.get(name, "ok"), seconds[name], flush=True)
    figures = {"seconds": seconds, "failed": failed, "shown": f"{len(lines) - len(failed)} of {len(lines)} ran"}
    if failed:
        print(json.dumps(figures))
        raise SystemExit(f"failed: {failed}")
    return figures


def needs_of(name: str) -> Figures:
    """What a method cannot run without."""
    import alignzoo
    from alignzoo.contract.card import Card

    cards = [card for card in alignzoo.list_methods() if isinstance(card, Card) and card.name == name]
    return {"reward": "probe"} if any("reward" in card.needs for card in cards) else {}


def run_sandbox(words: Figures) -> Any:
    """A short run on the sandbox, in a folder that is thrown away."""
    import alignzoo

    with tempfile.TemporaryDirectory() as folder:
        short = {"batch-size": 8, "eval-pairs": 4, "save-every": 0, "samples": False}
        return alignzoo.run({"loss": "dpo", **short, **words, "out": f"{folder}/run"})


def sandbox(*, cpu: bool) -> Figures:
    """The README's run, whole; with --cpu three steps of it without generated answers."""
    import alignzoo

    device_of(cpu)
    words: Figures = {"loss": "dpo", "geometry": "shapo-token", "robust": "drdpo"}
    if cpu:
        words |= {"max-steps": 3, "samples": False, "eval-pairs": 4}
    with tempfile.TemporaryDirectory() as folder:
        result = alignzoo.run({**words, "out": f"{folder}/run"})
        lines = [json.loads(line) for line in (Path(folder) / "run" / "metrics.jsonl").read_text().splitlines()]
    per_step = statistics.median(line["step_seconds"] for line in lines)
    margin = [figures.get("eval/rewards/margins", math.nan) for figures in (result.before, result.after)]
    return {
        "seconds": result.seconds, "step": per_step, "before": result.before, "after": result.after,
        "shown": f"{result.steps} steps in {result.seconds:.0f} s, {per_step:.3f} s a step, "
        f"held-out margin {margin[0]:+.3f} → {margin[1]:+.3f}",
    }  # fmt: skip


def memory(which: str, *, cpu: bool) -> Figures:
    """The measured peak of a run against what ``alignzoo plan`` predicts from the config."""
    import plan_accuracy
    import torch

    device_of(cpu)
    shape = "30M, 32k" if cpu else "135M, 49k"
    settings = {"lora": {"r": 8}, "precision": "bf16"} if which == "lora" else {"precision": "bf16"}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        data = plan_accuracy.write_data(folder / "pairs.jsonl")
        model = plan_accuracy.write_model(folder / "model", plan_accuracy.SHAPES[shape])
        recipe = plan_accuracy.recipe_of(model, data, settings, folder / "run")
        if cpu:
            predicted, measured = (
                plan_accuracy.predict(recipe, give_back=True),
                plan_accuracy.run_apart(recipe, give_back=True),
            )
        else:
            import alignzoo

            predicted = plan_accuracy.predict(recipe, gpu=float(torch.cuda.mem_get_info()[1]))
            alignzoo.run(recipe)
            measured = float(torch.cuda.max_memory_allocated())
    error = (predicted - measured) / measured
    shown = f"{shape}: predicted {predicted / GIB:.3f} GiB, measured {measured / GIB:.3f} GiB, {100 * error:+.1f} %"
    return {"predicted": predicted, "measured": measured, "error": error, "shown": shown}


def steps(shape: str, side: str, *, cpu: bool) -> Figures:
    """Whole steps of a shape with random weights, reference computed before; prints what ``measured.Clock`` shows."""
    import contextlib
    import io

    import steps_alignzoo
    import steps_trl
    from alignzoo_sandbox import MODEL_PATH
    from measured import Job

    device = device_of(cpu)
    lora = shape == "8b"
    config = SHAPES["tiny" if cpu else shape]
    pairs = 4
    lengths = ((8, 24), (4, 12)) if cpu else ((192, 512), (64, 256))
    with tempfile.TemporaryDirectory() as scratch:
        count = 2 if cpu else STEPS
        given = random_pairs((count + 1) * pairs, min(config["vocab_size"], 1000), *lengths)
        columns = zip(("prompt_ids", "chosen_ids", "rejected_ids"), map(list, zip(*given, strict=True)), strict=True)
        tokens = Path(scratch) / "tokens.json"
        tokens.write_text(json.dumps(dict(columns)))
        job = Job(
            model=str(MODEL_PATH), tokens=str(tokens), pairs=pairs, steps=count, max_length=1024, cached=True,
            precision="fp32" if cpu else "bf16", lora=16 if lora else 0, threads=2, scratch=f"{scratch}/run",
            packing=side == "packed", checkpointing=lora,
        )  # fmt: skip
        Path(job.scratch).mkdir()
        take = steps_trl.take_steps if side == "trl" else steps_alignzoo.take_steps
        shown = io.StringIO()
        with contextlib.redirect_stdout(shown):
            take(job, time.time(), lambda: random_model(config, device))
    figures: Figures = json.loads(shown.getvalue().splitlines()[-1])
    size = sum(len(part) for pair in given[pairs:] for part in pair)
    seconds = figures["seconds"]
    figures["tokens_per_second"] = size / sum(seconds)
    figures["shown"] = (
        f"{statistics.median(seconds):.3f} s a step ({min(seconds):.3f}–{max(seconds):.3f}), "
        f"{figures['tokens_per_second']:.0f} tokens/s, peak {figures['peak'] / GIB:.2f} GiB, "
        f"{figures['start']:.0f} s to the first step"
    )
    return figures


def generation(*, cpu: bool) -> Figures:
    """Greedy responses of a 1B shape with random weights in bf16, against its own ``generate`` on padded batches."""
    import torch
    from alignzoo_sandbox import MODEL_PATH
    from transformers import AutoTokenizer

    from alignzoo.generate.batched import generate
    from alignzoo.generate.decoding import Decoding

    device = device_of(cpu)
    count, new, bounds, size = (8, 4, (4, 12), 4) if cpu else (256, 128, (32, 512), 64)
    model = random_model(SHAPES["tiny" if cpu else "1b"], device).to(torch.float32 if cpu else torch.bfloat16).eval()
    model.generation_config.pad_token_id = 0
    draw = random.Random(0)
    prompts = [[draw.randrange(3, 1000) for _ in range(draw.randint(*bounds))] for _ in range(count)]
    tokenizer = AutoTokenizer.from_pretrained(MODEL_PATH)

    def padded(rows: list[list[int]]) -> None:
        width = max(map(len, rows))
        ids = torch.tensor([[0] * (width - len(row)) + row for row in rows], device=device)
        model.generate(input_ids=ids, attention_mask=(ids > 0).long(), max_new_tokens=new, do_sample=False)

    began = time.perf_counter()
    tokens = sum(response.tokens for _, response in generate(model, tokenizer, prompts, Decoding(new)))
    ours = time.perf_counter() - began
    began = time.perf_counter()
    ordered = sorted(prompts, key=len)
    for start in range(0, count, size):
        padded(ordered[start : start + size])
    theirs = time.perf_counter() - began
    shown = f"{tokens / ours:.0f} tokens/s; generate on batches of {size}: {theirs / ours:.2f} times as long"
    return {"seconds": ours, "padded": theirs, "tokens": tokens, "shown": shown}


def random_model(shape: dict[str, Any], device: str) -> PreTrainedModel:
    """A llama of the shape, in fp32, made where it is used: nothing is written or copied."""
    import torch
    import transformers

    torch.manual_seed(0)
    config = transformers.LlamaConfig(**shape, max_position_embeddings=8192, pad_token_id=0)
    with torch.device(device):
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    assert isinstance(model, transformers.PreTrainedModel)
    return model


NAMES: dict[str, Callable[..., Figures]] = {
    part.__name__: part for part in (tests, packing, methods, sandbox, generation, memory, steps)
}


def main() -> None:
    """Run one part."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("name", choices=NAMES)
    parser.add_argument("words", nargs="*")
    parser.add_argument("--cpu", action="store_true")
    arguments = parser.parse_args()
    figures = NAMES[arguments.name](*arguments.words, cpu=arguments.cpu)
    print(json.dumps(figures), flush=True)


if __name__ == "__main__":
    main()
