"""Responses by the model's own ``generate``: for models with other caches, inputs or search than the loop's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from transformers import StoppingCriteria, StoppingCriteriaList

from alignzoo.generate.choose import seed_of
from alignzoo.generate.decoding import Decoding, Response
from alignzoo.generate.ending import Ending
from alignzoo.generate.memory import is_out_of_memory

_ROWS = {"cpu": 32}
_ROWS_ELSEWHERE = 64
"""Most prompts at a time."""


class _Ended(StoppingCriteria):
    """A response that has ended, by the same rules as in the loop."""

    def __init__(self, ending: Ending, width: int) -> None:
        self._ending = ending
        self._width = width

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
        """(rows,): which responses have ended."""
        ended = [self._ending.reached(new) for new in input_ids[:, self._width :].tolist()]
        return torch.tensor(ended, device=input_ids.device)


def through_model(
    model: Any, tokenizer: Any, prompts: Mapping[int, Sequence[int]], decoding: Decoding, batch_size: int | None
) -> Iterator[tuple[int, Response]]:
    """``(index, response)`` of ``prompts`` (token ids by index).

    Prompts of one length are answered together: not every such model can leave padding out. Sampled responses are made
    one at a time, each with a seed of its own.
    """
    size = batch_size or _ROWS.get(model.device.type, _ROWS_ELSEWHERE)
    waiting = sorted(prompts, key=lambda index: (-len(prompts[index]), index))
    ending = Ending(model, tokenizer, decoding.until)
    while waiting:
        width = len(prompts[waiting[0]])
        group = [index for index in waiting[: size if decoding.greedy else 1] if len(prompts[index]) == width]
        try:
            responses = _responses(model, ending, {index: prompts[index] for index in group}, decoding)
        except Exception as error:
            if not is_out_of_memory(error) or len(group) == 1:
                raise
            size = len(group) // 2
            torch.cuda.empty_cache()
            continue
        del waiting[: len(group)]
        yield from zip(group, responses, strict=True)


@torch.no_grad()
def _responses(model: Any, ending: Ending, prompts: Mapping[int, Sequence[int]], decoding: Decoding) -> list[Response]:
    tokens = torch.tensor([list(ids) for ids in prompts.values()], device=model.device)
    width = tokens.shape[1]
    sampling: dict[str, Any] = {"do_sample": False}
    if not decoding.greedy:
        settings = {"temperature": decoding.temperature, "top_p": decoding.top_p, "top_k": decoding.top_k}
        sampling = {"do_sample": True, **settings}
    with torch.random.fork_rng():
        torch.manual_seed(seed_of(decoding.seed, next(iter(prompts))))
        made = model.generate(
            input_ids=tokens,
            attention_mask=torch.ones_like(tokens),
            max_new_tokens=decoding.max_new_tokens,
            pad_token_id=min(ending.tokens, default=0),
            eos_token_id=sorted(ending.tokens) or None,
            stopping_criteria=StoppingCriteriaList([_Ended(ending, width)]),
            use_cache=True,
            synced_gpus=False,  # one rank generates, with all the weights
            **sampling,
        )
    return [ending.response(_up_to_end(new, ending)) for new in made[:, width:].tolist()]


def _up_to_end(new: list[int], ending: Ending) -> list[int]:
    """The response's tokens, without the padding after its end."""
    for size in range(1, len(new)):
        if ending.reached(new[:size]):
            return new[:size]
    return new
