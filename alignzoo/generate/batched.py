"""Responses to many prompts: alignzoo's own loop, and transformers' ``generate`` for models that it does not suit."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any

from alignzoo.errors import DataError, UsageError
from alignzoo.generate.decoding import Decoding, Response
from alignzoo.generate.inference import evaluation_mode
from alignzoo.model.base import without_adapter
from alignzoo.report import Reporter

_UNSTATED_POSITIONS = 2048
"""Positions of a model that states none, as lm-eval assumes."""
_UNSTATED = 10**30
"""transformers' ``model_max_length`` of a tokenizer that states none is this large."""


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
    only: Collection[int] | None = None,
) -> Iterator[tuple[int, Response]]:
    """``(index, response)`` of each prompt, as soon as it is finished; longer prompts come first.

    Rows leave the batch as their responses end, and the next prompts take their places. Greedy responses are those of
    the model's own ``generate`` for each prompt alone; a sampled one depends on ``decoding.seed`` and the prompt's
    index alone. (Both up to rounding: batches of another size add up in another order, which can decide between
    two tokens that are as good as equally probable.)

    The model is in evaluation mode until the iterator is exhausted or closed; then its training flags are restored.
    The random state and the tokenizer are left unchanged. Out of CUDA memory, the batch is halved, and it continues.

    Args:
        model: a causal language model of transformers, with or without adapters of peft.
        prompts: token ids of each prompt. One that leaves no room for ``max_new_tokens`` within the model's positions
            is truncated on the left.
        batch_size: most prompts at a time; None chooses it by the memory that their keys and values take.
        label: of the progress bar.
        done: prompts answered before, for the progress bar.
        only: indices of the prompts to answer, for instance to resume; None answers all.

    Raises:
        DataError: an empty prompt.
        UsageError: ``max_new_tokens`` leaves no room for a prompt.
    """
    wanted = range(len(prompts)) if only is None else sorted(only)
    for index in wanted:
        if not len(prompts[index]):
            raise DataError(f"prompt {index} has no tokens", hint="a model continues at least one token")
    return _generated(model, tokenizer, prompts, wanted, decoding, batch_size, report or Reporter(), label, done)


def fitting(model: Any, tokenizer: Any, ids: Sequence[int], max_new_tokens: int) -> list[int]:
    """A prompt that leaves room for ``max_new_tokens``, truncated on the left as lm-eval truncates it.

    Raises:
        UsageError: there is no room for a prompt at all.
    """
    return list(ids[-_room(model, tokenizer, max_new_tokens) :])


def _room(model: Any, tokenizer: Any, max_new_tokens: int) -> int:
    """Most tokens of a prompt."""
    room = _positions(model, tokenizer) - max_new_tokens
    if room < 1:
        raise UsageError(
            f"max_new_tokens is {max_new_tokens}, but the model has {room + max_new_tokens} positions for the prompt "
            "and the response",
            hint=f"give {room + max_new_tokens - 1} or less",
        )
    return room


def _generated(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Sequence[int]],
    wanted: Sequence[int],
    decoding: Decoding,
    batch_size: int | None,
    report: Reporter,
    label: str,
    done: int,
) -> Iterator[tuple[int, Response]]:
    from alignzoo.generate.loop import steps_alone, through_slots
    from alignzoo.generate.whole import through_model

    room = _room(model, tokenizer, decoding.max_new_tokens) if wanted else 0
    fitted = {index: list(prompts[index][-room:]) for index in wanted}
    with report.progress(len(fitted) + done, label, unit="prompt", done=done) as bar:
        if not fitted:
            return
        with evaluation_mode(model):
            if steps_alone(model):
                made = through_slots(without_adapter(model), tokenizer, fitted, decoding, batch_size)
            else:
                made = through_model(model, tokenizer, fitted, decoding, batch_size)
            for index, response in made:
                bar.advance()
                yield index, response


def _positions(model: Any, tokenizer: Any) -> int:
    """The model's positions, from the places where lm-eval looks."""
    config = getattr(model.config, "text_config", None) or model.config
    for name in ("n_positions", "max_position_embeddings", "n_ctx"):
        if isinstance(value := getattr(config, name, None), int):
            return value
    stated = getattr(tokenizer, "model_max_length", None)
    return stated if isinstance(stated, int) and stated < _UNSTATED else _UNSTATED_POSITIONS
