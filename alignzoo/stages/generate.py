"""Pairs from a model's own responses: the data's chosen response against one that the model samples."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignzoo.base.files import write_text
from alignzoo.data.rows import PromptRow
from alignzoo.errors import DataError
from alignzoo.generate import batched
from alignzoo.generate.decoding import Decoding
from alignzoo.report import Reporter
from alignzoo.stages.parse import DATA_FILE, Generation, Stage

if TYPE_CHECKING:
    from accelerate import Accelerator

_PARTS = "parts"


def generate(stage: Stage, accelerator: Accelerator, report: Reporter) -> None:
    """Write ``data.jsonl``: rows of prompt, chosen and rejected. Batches that were written before are kept.

    Each batch is sampled with a seed of its own, so that a stage gives the same responses on any number of ranks and
    after an interruption.

    Raises:
        DataError: no response differs from the chosen one.
    """
    from alignzoo.session.session import Session

    assert stage.plan is not None
    assert stage.generation is not None
    generation, settings = stage.generation, stage.plan.settings
    session = Session(stage.plan, accelerator, report, uses=())
    prepared = session.prepared
    rows = _drawn(len(prepared.dataset), generation.prompts, settings.seed)
    sizes = [len(ids) for ids in prepared.dataset["prompt_ids"]]
    rows.sort(key=lambda row: (sizes[row], row))
    starts = range(0, len(rows), generation.batch_size)
    parts = stage.folder / _PARTS
    parts.mkdir(parents=True, exist_ok=True)
    mine = [
        start for start in starts if start // generation.batch_size % accelerator.num_processes == _rank(accelerator)
    ]
    left = [start for start in mine if not (parts / f"{start:08}.jsonl").is_file()]
    done = len(mine) - len(left)
    with report.progress(len(mine), f"generating ({stage.name})", unit="batch", done=done) as bar:
        for start in left:
            batch = prepared.dataset.select(rows[start : start + generation.batch_size])
            seed = _seed(settings.seed, stage.name, start)
            responses = sample(session.policy, session.tokenizer, batch["prompt_ids"], generation, seed)
            originals = prepared.original.of(batch["row_id"])
            lines = [json.dumps(_pair(row, text)) for row, text in zip(originals, responses, strict=True)]
            write_text(parts / f"{start:08}.jsonl", "".join(f"{line}\n" for line in lines))
            bar.advance()
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        _join(stage.folder, generation, report)
    accelerator.wait_for_everyone()


def sample(
    model: Any, tokenizer: Any, prompts: Sequence[Sequence[int]], generation: Generation, seed: int
) -> list[str]:
    """One response to each prompt (token ids), without special tokens."""
    decoding = Decoding(generation.max_new_tokens, generation.temperature, generation.top_p, seed=seed)
    responses = dict(batched.generate(model, tokenizer, prompts, decoding, batch_size=generation.batch_size))
    return [responses[index].text for index in range(len(prompts))]


def _pair(row: PromptRow, response: str) -> dict[str, Any]:
    """The row as a pair: its best response chosen, the given one rejected."""
    chosen = row.responses[0]
    rejected = response if isinstance(chosen, str) else [{"role": "assistant", "content": response}]
    return {"prompt": row.prompt, "chosen": chosen, "rejected": rejected}


def _join(folder: Path, generation: Generation, report: Reporter) -> None:
    """One file of what the stage and, where asked for, an earlier one generated; pairs of equal sides are left out."""
    lines = _generated(folder)
    pairs = [line for line in lines if _differs(json.loads(line))]
    if len(pairs) < len(lines):
        report.note(
            f"left out {len(lines) - len(pairs)} of {len(lines)} generated responses: empty, or equal to the chosen one"
        )
    if not pairs:
        raise DataError(
            f"{folder}: no generated response differs from the data's own",
            hint="the model reproduces its data: stop here, or raise the temperature",
        )
    if generation.together_with is not None:
        earlier = _generated(Path(generation.together_with).parent)  # not what that stage has from a still earlier one
        pairs += [line for line in earlier if _differs(json.loads(line))]
    write_text(folder / DATA_FILE, "".join(f"{line}\n" for line in pairs))


def _generated(folder: Path) -> list[str]:
    """The pairs that a stage generated itself, in order."""
    parts = sorted((folder / _PARTS).glob("*.jsonl"))
    return [line for part in parts for line in part.read_text(encoding="utf-8").splitlines()]


def _differs(pair: dict[str, Any]) -> bool:
    chosen, rejected = (_text(pair[side]).strip() for side in ("chosen", "rejected"))
    return bool(rejected) and chosen != rejected


def _text(response: Any) -> str:
    return response if isinstance(response, str) else str(response[-1]["content"])


def _drawn(size: int, count: int | None, seed: int) -> list[int]:
    """Row numbers: all, or ``count`` of them drawn at random."""
    if count is None or count >= size:
        return list(range(size))
    return random.Random(f"prompts:{seed}").sample(range(size), count)


def _seed(*parts: Any) -> int:
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:7], "little")


def _rank(accelerator: Accelerator) -> int:
    return int(accelerator.process_index)
