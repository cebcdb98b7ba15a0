"""What must be right on a GPU: the tests marked for one, packing, precision, every method, a run."""

from __future__ import annotations

import json
import math
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shapes import ROOT, SHAPES, Figures, Pair, device_of, random_model, random_pairs

if TYPE_CHECKING:
    import torch

    from alignzoo.data.collate import TokenBatch

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


DTYPES = ("fp32", "bf16")
MASKLESS = ("varlen", "flex", "segments")
"""Ways of attention without a mask over the row, of which each of the families must take one."""


def packing(*precisions: str, cpu: bool) -> Figures:
    """Packed against padded log-probs and gradients of six families, errors measured from fp32 padded."""
    import torch._dynamo

    device, wanted = device_of(cpu), precisions or DTYPES
    rows, failures = {}, []
    for name in [f"{family}, {precision}" for family in FAMILIES for precision in wanted]:
        family, precision = name.rsplit(", ", 1)
        torch._dynamo.reset()  # a family's recompilations of FlexAttention do not count for the next
        try:
            found = packed_against_padded(family, precision, device)
        except Exception as error:  # one family's fault is not the others'
            found = {"error": f"{type(error).__name__}: {error}"[:300]}
        rows[name] = found
        good = "error" not in found and all(found[what] <= found["bounds"][what] for what in ("packed", "gradient"))
        if not good or found["way"] not in MASKLESS:
            failures.append(name)
        print(json.dumps({"rows": rows, "shown": f"{len(rows)} of {len(FAMILIES) * len(wanted)} tried"}), flush=True)
    worst = {p: max(r.get("packed", math.inf) for n, r in rows.items() if n.endswith(p)) for p in wanted}
    if failures:
        raise SystemExit(f"not as padded, or with a mask over the row: {'; '.join(failures)}")
    return {"rows": rows, "shown": ", ".join(f"{p}: largest difference {gap:.1e}" for p, gap in worst.items())}


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
        "way": choice.way,
        "why": choice.why,
        "packed": gap(packed[0], exact[0]),
        "gradient": gap(packed[1], exact[1]),
        "bounds": {"packed": bounds[0], "gradient": bounds[1]},
    }


def batch_of(pairs: Sequence[Pair], device: str) -> TokenBatch:
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


def precision(*, cpu: bool) -> Figures:
    """The precision of a run that states none; and the error of the responses' log-probs in bf16 on the 1B shape, from
    fp64: packed, and with the model's own logits."""
    import torch

    from alignzoo.logprobs.forward import choose_forward, leave_packing

    device = device_of(cpu)
    shape = SHAPES["tiny" if cpu else "1b"]
    model = random_model(shape, device).eval()
    lengths = ((8, 24), (8, 24)) if cpu else ((192, 512), (64, 256))
    batch = batch_of(random_pairs(4, 1000, *lengths), device)
    choice = choose_forward(model, batch, autocast=torch.bfloat16)
    with torch.no_grad(), torch.autocast(device, torch.bfloat16):
        ours = choice.forward(model, batch).logps.double()
        leave_packing(model)
        theirs = own_logps(model, batch)
    with torch.no_grad():
        exact = own_logps(model.double(), batch)
    errors = {name: float((found - exact).abs().mean()) for name, found in (("ours", ours), ("logits", theirs))}
    shown = f"mean error of a response's log-prob: {errors['ours']:.1e}, by bf16 logits {errors['logits']:.1e}"
    if errors["ours"] > 1.5 * errors["logits"]:
        raise SystemExit(f"less exact than bf16 logits: {shown}")
    expected = "bf16" if not cpu and torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    taken = default_precision()
    if taken != expected:
        raise SystemExit(f"a run takes {taken} and not {expected}; {shown}")
    return {**errors, "way": choice.way, "default": taken, "shown": f"a run takes {taken}; {shown}"}


def default_precision() -> str:
    """Of a run that does not say, as its plan file has it."""
    import yaml

    import alignzoo

    with tempfile.TemporaryDirectory() as folder:
        words = {"loss": "dpo", "batch-size": 4, "max-steps": 1, "eval-pairs": 4, "samples": False, "save-every": 0}
        alignzoo.run({**words, "out": f"{folder}/run"})
        plan = yaml.safe_load((Path(folder) / "run" / "plan.yaml").read_text())
    return str(plan["settings"]["precision"]["value"])


def own_logps(model: Any, batch: TokenBatch) -> torch.Tensor:
    """Log-probs of the responses from the model's own logits, in float64."""
    import torch

    logits = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits[:, :-1]
    chosen = batch.input_ids[:, 1:, None]
    found = [row.double().log_softmax(-1).gather(-1, ids) for row, ids in zip(logits, chosen, strict=True)]
    return (torch.stack(found).squeeze(-1) * batch.response_mask[:, 1:]).sum(1)
