"""alignzoo's own loop: rows join a running batch, and leave it as their responses end."""

from __future__ import annotations

import inspect
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from transformers.cache_utils import DynamicCache, DynamicLayer, DynamicSlidingWindowLayer
from transformers.generation import GenerationMixin
from transformers.generation.configuration_utils import GenerationMode

from alignzoo.data.rendering import shared_length
from alignzoo.generate.choose import Chooser, Row
from alignzoo.generate.decoding import Decoding, Response
from alignzoo.generate.ending import Ending
from alignzoo.generate.memory import is_out_of_memory, rows_that_fit
from alignzoo.generate.slots import Slots
from alignzoo.model.base import without_adapter

_SHORTEST_PREFIX = 8
"""Tokens that all prompts must share for these to be processed once."""
_PREFILL_TOKENS = {"cpu": 2048}
_PREFILL_TOKENS_ELSEWHERE = 16384
"""Most tokens to process at a time, padding included."""
_NEEDED = {"input_ids", "attention_mask", "position_ids", "past_key_values", "use_cache"}


def steps_alone(model: Any) -> bool:
    """Whether alignzoo's own loop generates with ``model``: a transformers decoder with plain attention.

    Other caches (of state-space layers, of chunked or compressed attention) cannot shift rows, and other inputs, code
    of one's own or other search than the most probable token are left to the model's own ``generate``.
    """
    if _learns_prompts(model):
        return False
    model = without_adapter(model)
    config = model.config
    return (
        type(model).__module__.startswith("transformers.")
        and not config.is_encoder_decoder
        and set(inspect.signature(model.forward).parameters) >= _NEEDED
        and type(model).prepare_inputs_for_generation is GenerationMixin.prepare_inputs_for_generation
        and model._supports_default_dynamic_cache()
        and not model._is_stateful
        and _searches_greedily(model)
        and all(
            type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) for layer in DynamicCache(config=config).layers
        )
        and getattr(config.get_text_config(decoder=True), "attention_chunk_size", None) is None
    )


def _searches_greedily(model: Any) -> bool:
    """Whether the model's generation config asks for nothing else, nor for a cache that saves memory."""
    config, _ = model._prepare_generation_config(None, do_sample=False)
    saves_memory = str(config.cache_implementation).startswith(("quantized", "offloaded"))
    return bool(config.get_generation_mode() == GenerationMode.GREEDY_SEARCH) and not saves_memory


def _learns_prompts(model: Any) -> bool:
    """Whether an adapter adds to the inputs, which only the adapter's own wrapper does."""
    adapters = getattr(model, "peft_config", None)
    configs = adapters.values() if isinstance(adapters, dict) else ()
    return any(
        getattr(config, "is_prompt_learning", False) or getattr(config, "alora_invocation_tokens", None)
        for config in configs
    )


def padding_share(device: Any) -> float:
    """How much padding to accept, as a share of a prefill's tokens. On a CPU each token takes its time."""
    return 0.125 if device.type == "cpu" else 1.0


def through_slots(
    model: Any, tokenizer: Any, prompts: Mapping[int, Sequence[int]], decoding: Decoding, batch_size: int | None
) -> Iterator[tuple[int, Response]]:
    """``(index, response)`` of ``prompts`` (token ids by index), with a model that :func:`steps_alone`."""
    loop = Loop(model, tokenizer, prompts, decoding, batch_size)
    while loop.unfinished:
        try:
            ended = loop.advance()
        except Exception as error:
            if not is_out_of_memory(error) or not loop.halve():
                raise
            torch.cuda.empty_cache()
            continue
        for row in ended:
            yield row.index, loop.ending.response(row.new)


class Loop:
    """Prompts that wait, and rows in generation.

    Args:
        capacity: most rows at a time; None chooses it after the first prompt, by the memory that it takes.
    """

    def __init__(
        self, model: Any, tokenizer: Any, prompts: Mapping[int, Sequence[int]], decoding: Decoding, capacity: int | None
    ) -> None:
        self.ending = Ending(model, tokenizer, decoding.until)
        self._model = model
        self._prompts = prompts
        self._decoding = decoding
        self._capacity = capacity
        self._chooser = Chooser(model, decoding)
        self._longest = max(map(len, prompts.values())) + decoding.max_new_tokens
        self._wait(prompts)

    @property
    def unfinished(self) -> bool:
        """Whether a prompt is without its response."""
        return bool(self._waiting or self._slots.rows)

    @property
    def rows(self) -> Sequence[Row]:
        """The rows in generation."""
        return self._slots.rows

    def advance(self) -> list[Row]:
        """Let prompts join if there is room, else give each row its next token. The rows that ended thereby."""
        free = (self._capacity or 1) - len(self._slots.rows)
        # A prefill of a few rows costs little less than a step, so several are awaited.
        if self._waiting and (not self._slots.rows or free >= max(1, (self._capacity or 1) // 8)):
            return self._admit(free)
        self._chooser.extend(self._slots.rows, self._slots.step())
        ended = [place for place, row in enumerate(self._slots.rows) if self._has_ended(row)]
        rows = [self._slots.rows[place] for place in ended]
        if ended:
            self._slots.leave(ended)
        return rows

    def halve(self) -> bool:
        """Begin again with what is unfinished and half the rows at a time. False if there was only one."""
        if (self._capacity or 1) <= 1:
            return False
        unfinished = [*self._waiting, *(row.index for row in self._slots.rows), *self._joining]
        self._capacity = (self._capacity or 1) // 2
        self._wait(unfinished)
        return True

    def _wait(self, indices: Any) -> None:
        """Let prompts wait, the longest first: so a joining row is never longer than the running ones.

        Among prompts of one length, those that begin alike are next to each other.
        """
        order = sorted(indices, key=lambda index: (-len(self._prompts[index]), self._prompts[index], index))
        self._waiting = deque(order)
        self._joining: list[int] = []
        window = getattr(self._model.config.get_text_config(decoder=True), "sliding_window", None)
        shares = not window or window >= self._longest  # else padding would count in the window
        self._slots = Slots(self._model, self._shared_prefix() if shares else [], shares)

    def _admit(self, free: int) -> list[Row]:
        self._joining = self._next_group(free)
        rows = [self._chooser.row(index, self._prompts[index]) for index in self._joining]
        logits, cache = self._slots.prefill(rows)
        self._chooser.extend(rows, logits)
        if self._capacity is None:
            self._capacity = rows_that_fit(cache, self._longest)
        going = [place for place, row in enumerate(rows) if not self._has_ended(row)]
        if going:
            cache.batch_select_indices(torch.tensor(going, device=logits.device))
            self._slots.join([rows[place] for place in going], cache, self._capacity, self._longest)
        self._joining = []
        return [row for row in rows if self._has_ended(row)]

    def _next_group(self, free: int) -> list[int]:
        """The next prompts to process together: of similar length, within a number of tokens."""
        width = len(self._prompts[self._waiting[0]])
        share = padding_share(self._model.device)
        most = _PREFILL_TOKENS.get(self._model.device.type, _PREFILL_TOKENS_ELSEWHERE)
        group: list[int] = []
        tokens = 0
        while self._waiting and len(group) < free:
            tokens += len(self._prompts[self._waiting[0]])
            padded = (len(group) + 1) * width
            if group and (padded > most or padded > tokens * (1 + share)):
                break
            group.append(self._waiting.popleft())
        return group

    def _has_ended(self, row: Row) -> bool:
        return len(row.new) >= self._decoding.max_new_tokens or self.ending.reached(row.new)

    def _shared_prefix(self) -> list[int]:
        """Tokens that all waiting prompts begin with, such as a system prompt, if it is worth processing them once."""
        prompts = [list(self._prompts[index]) for index in self._waiting]
        if len(prompts) < 2:
            return []
        size = min(shared_length(*prompts), *(len(prompt) - 1 for prompt in prompts))
        return prompts[0][:size] if size >= _SHORTEST_PREFIX else []
