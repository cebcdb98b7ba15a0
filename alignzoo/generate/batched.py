"""Responses to many prompts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from alignzoo.generate.decoding import Decoding, Response
from alignzoo.generate.inference import inference
from alignzoo.lazy import torch
from alignzoo.report import Reporter


def generate(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Sequence[int]],
    decoding: Decoding,
    *,
    batch_size: int | None = None,
    report: Reporter | None = None,
    label: str = "generating",
    done: int = 0,
) -> Iterator[tuple[int, Response]]:
    """``(index, response)`` of each prompt, as soon as it is finished.

    Args:
        prompts: token ids of each prompt.
        batch_size: prompts at a time; None chooses it.
        label: of the progress bar.
        done: prompts answered before, for the progress bar.
    """
    report = report or Reporter()
    with report.progress(len(prompts) + done, label, unit="prompt", done=done) as bar:
        for index, ids in enumerate(prompts):
            with inference(model):
                tokens = torch.tensor([list(ids)], device=model.device)
                sampling: dict[str, Any] = {"do_sample": False}
                if not decoding.greedy:
                    sampling = {"do_sample": True, "temperature": decoding.temperature, "top_p": decoding.top_p}
                made = model.generate(
                    input_ids=tokens,
                    attention_mask=torch.ones_like(tokens),
                    max_new_tokens=decoding.max_new_tokens,
                    pad_token_id=tokenizer.pad_token_id,
                    eos_token_id=tokenizer.eos_token_id,
                    **sampling,
                )
            new = made[0, len(ids) :].tolist()
            ended = bool(new) and new[-1] == tokenizer.eos_token_id
            text = tokenizer.decode(new, skip_special_tokens=True)
            for stop in decoding.until:
                text = text.split(stop)[0]
            yield index, Response(text, len(new), ended)
            bar.advance()
