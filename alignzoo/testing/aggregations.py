"""Rules of aggregations: one log-prob per response, from its own tokens, alike for policy and reference."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from alignzoo.contract.aggregation import Aggregation, TokenView
from alignzoo.contract.card import Card
from alignzoo.contract.responses import ResponseBatch
from alignzoo.errors import contained
from alignzoo.lazy import torch
from alignzoo.testing.arithmetic import check_finite, check_gradient, check_vector, differ
from alignzoo.testing.common import every_option_matters
from alignzoo.testing.compare import EXACT, relative_error
from alignzoo.testing.outcomes import Rule, Violation
from alignzoo.testing.sample import ORDER, PARTS, leaves, sample_of, take, with_margin
from alignzoo.testing.spy import check_declared, reads
from alignzoo.testing.subject import Configuration, Subject

OF_A_MODEL = ("logps", "ref_logps", "token_logps", "ref_token_logps")
_WIDEST, _HIDDEN = 16, 6
"""Tokens of the longest response at most, and the size of its hidden states."""
MARGINS = (500.0, -500.0, 5000.0, -5000.0)


def _one_logp_per_response(subject: Subject) -> None:
    for configuration, aggregation in _built(subject):
        for count in (8, 1):
            batch = _batch(subject, configuration, aggregation, count=count)
            check_vector(_of_policy(aggregation, batch), batch.logps, f"the log-probs {configuration}")


def _gradcheck(subject: Subject) -> None:
    for configuration, aggregation in _built(subject):
        check_gradient(
            partial(_of_policy, aggregation), _batch(subject, configuration, aggregation, count=3), str(configuration)
        )


def _finite(subject: Subject) -> None:
    for configuration, aggregation in _built(subject):
        for dtype in (torch.float32, torch.bfloat16):
            for margin in MARGINS:
                raw = with_margin(_raw(subject, configuration), margin)
                batch, inputs = leaves(_weighed(subject, configuration, aggregation, raw).to(dtype=dtype))
                found = _of_policy(aggregation, batch)
                grads = torch.autograd.grad(found.sum(), list(inputs.values()), allow_unused=True)
                where = f"at a log-prob lowered by {abs(margin):g} nats in {dtype}, {configuration}"
                check_finite({"log-probs": found, "gradients": grads}, where)


def _of_its_prompt_alone(subject: Subject) -> None:
    for configuration, aggregation in _built(subject):
        raw = _raw(subject, configuration)
        whole = _of_policy(aggregation, _weighed(subject, configuration, aggregation, raw))
        for index in map(torch.tensor, (*PARTS, ORDER)):
            places = torch.cat([(raw.prompt == prompt).nonzero().flatten() for prompt in index])
            part = _weighed(subject, configuration, aggregation, take(raw, index), rows=index)
            if not relative_error(_of_policy(aggregation, part), whole[places]) <= EXACT:
                raise Violation(
                    expected="a response's log-prob to be that of its own tokens and its prompt's responses",
                    found=f"another when the other prompts are taken away or moved, {configuration}",
                    remedy="compare lengths within `responses.prompt` only, and use the mask, not the width",
                )


def _whatever_the_label(subject: Subject) -> None:
    for configuration, aggregation in _built(subject):
        raw = _raw(subject, configuration)
        both = [_weighed(subject, configuration, aggregation, batch) for batch in (raw, raw.swap())]
        if differ(*([_of_policy(aggregation, batch)] for batch in both)):
            raise Violation(
                expected="the same log-probs under the opposite labels",
                found=f"others {configuration}",
                remedy="do not read labels or ranks: a swapped pair has the log-probs of the pair",
            )


def whatever_the_model(subject: Subject) -> None:
    """Policy and reference are aggregated alike where only what is given as an argument is of the model."""
    for configuration, aggregation in _built(subject):
        batch = _batch(subject, configuration, aggregation)
        with reads() as seen:
            _of_policy(aggregation, batch)
        read = sorted(set(OF_A_MODEL) & seen.fields)
        if read:
            raise Violation(
                expected="log-probs to be taken from the arguments",
                found=f"responses.{read[0]} read {configuration}, which is the policy's in both calls",
                remedy="compute from `logps` and `token_logps`: they are the reference's in the second call",
            )


def _declared_fields(subject: Subject) -> None:
    read: list[tuple[Configuration, set[str]]] = []
    for configuration, aggregation in _built(subject):
        raw = _raw(subject, configuration, declared=False)
        with reads() as seen:
            batch = _weighed(subject, configuration, aggregation, raw)
        weighing = set(seen.fields)
        batch, inputs = leaves(batch)
        tokens = inputs["token_logps"]
        with reads() as seen:
            found = aggregation(inputs["logps"], tokens, batch)
        (grad,) = torch.autograd.grad(found.sum(), tokens, allow_unused=True)
        fields = weighing | set(seen.fields) | ({"token_logps"} if grad is not None and bool(grad.any()) else set())
        read.append((configuration, fields))
    check_declared(subject, read)


def _no_dead_option(subject: Subject) -> None:
    def behaviour(configuration: Configuration) -> list[torch.Tensor]:
        aggregation = subject.build(configuration)
        batches = [_batch(subject, configuration, aggregation, seed=seed) for seed in (11, 12)]
        return [_of_policy(aggregation, batch).detach() for batch in batches]

    every_option_matters(subject, lambda a, b: differ(behaviour(a), behaviour(b)))


def _repeatable(subject: Subject) -> None:
    for configuration, aggregation in _built(subject):
        batch = _batch(subject, configuration, aggregation)
        if differ([_of_policy(aggregation, batch)], [_of_policy(aggregation, batch)]):
            raise Violation(
                expected="two evaluations of the same batch to be the same",
                found=f"others {configuration}",
                remedy="draw nothing at random and keep no state: a step is evaluated several times",
            )


def _token_weights(subject: Subject) -> None:
    for configuration, aggregation in _built(subject):
        raw = _raw(subject, configuration)
        whole = _weights(subject, configuration, aggregation, raw)
        if not torch.equal(_weights(subject, configuration, aggregation, raw), whole):
            raise Violation(
                expected="the same weights for the same tokens in another pass of the step",
                found=f"others {configuration}",
                remedy="draw with `tokens.generator(r)` only, and keep no state",
            )
        for index in map(torch.tensor, (*PARTS, ORDER)):
            places = torch.cat([(raw.prompt == prompt).nonzero().flatten() for prompt in index])
            found = _weights(subject, configuration, aggregation, take(raw, index), rows=index)
            if not relative_error(found, whole[places, : found.shape[1]]) <= EXACT:
                raise Violation(
                    expected="a token's weight to depend on the responses of its prompt alone",
                    found=f"another when the other prompts are taken away or moved, {configuration}",
                    remedy="use `tokens.generator(r)` of each response, and the mask in place of the width",
                )
        _declares_hidden(subject, configuration, aggregation, raw)


def _declares_hidden(subject: Subject, configuration: Configuration, aggregation: Any, raw: ResponseBatch) -> None:
    seen: list[str] = []
    _weighed(subject, configuration, aggregation, raw, seen=seen)
    declared = "hidden-states" in subject.needs(configuration)
    if declared != bool(seen):
        raise Violation(
            expected=f"hidden states to be {'read, as declared' if declared else 'left alone'}",
            found=f"{'that they are not' if declared else 'tokens.hidden read'} {configuration}",
            remedy=f"{'take' if declared else 'put'} 'hidden-states' {'out of' if declared else 'into'} the needs",
        )


def _built(subject: Subject) -> Iterator[tuple[Configuration, Any]]:
    for configuration in subject.configurations:
        yield configuration, subject.build(configuration)


def _weighs(aggregation: Any) -> bool:
    return _weighs_by(type(aggregation))


def _weighs_by(method: type[Aggregation]) -> bool:
    return method.token_weights is not Aggregation.token_weights


def _batch(
    subject: Subject, configuration: Configuration, aggregation: Any, *, count: int = 8, seed: int = 0
) -> ResponseBatch:
    """Ranked responses of several prompts with the fields that are declared, and weights of their tokens."""
    return _weighed(subject, configuration, aggregation, _raw(subject, configuration, count=count, seed=seed))


def _weights(
    subject: Subject, configuration: Configuration, aggregation: Any, raw: ResponseBatch, rows: Any = None
) -> torch.Tensor:
    weights = _weighed(subject, configuration, aggregation, raw, rows=rows).token_weights
    return torch.zeros(len(raw), 0) if weights is None else weights


def _weighed(
    subject: Subject,
    configuration: Configuration,
    aggregation: Any,
    raw: ResponseBatch,
    *,
    rows: Any = None,
    seen: list[str] | None = None,
) -> ResponseBatch:
    """The responses with weights of their tokens, as a run's forward pass gives them.

    Args:
        rows: ``(P,)`` the number of each prompt's row, by which its generators are seeded.
        seen: takes a note if hidden states are read.
    """
    if not _weighs(aggregation):
        return raw
    from alignzoo.objective.terms import Aggregating
    from alignzoo.step.token_weights import weighed_by

    declared = "hidden-states" in subject.needs(configuration)
    view = _view(raw, rows, seen if seen is not None else [], hidden=declared or seen is not None)
    return weighed_by(Aggregating(subject.card.name, aggregation, declared), view, raw)


def _view(raw: ResponseBatch, rows: Any, seen: list[str], *, hidden: bool) -> TokenView:
    """The tokens of a batch, with random hidden states that follow a response wherever it is moved."""
    from alignzoo.distributed.seeds import mixed

    prompts = object.__getattribute__(raw, "prompt").tolist()
    numbers = list(range(max(prompts) + 1)) if rows is None else rows.tolist()
    keys = [(numbers[prompt], prompts[:i].count(prompt)) for i, prompt in enumerate(prompts)]

    def generator(response: int) -> torch.Generator:
        return torch.Generator().manual_seed(mixed("tokens", *keys[response]))

    mask, states = object.__getattribute__(raw, "token_mask"), None
    if hidden and mask is not None:
        draws = [torch.Generator().manual_seed(mixed("hidden", *key)) for key in keys]
        longest = [torch.randn(_WIDEST, _HIDDEN, generator=draw, dtype=torch.float64) for draw in draws]
        states = torch.stack(longest)[:, : mask.shape[1]] * mask[..., None]
    return _Watched(raw.detach(), torch.tensor(numbers), states, generator, seen)


@dataclass(frozen=True)
class _Watched(TokenView):
    """A view that notes whether its hidden states are read."""

    seen: list[str] = field(default_factory=list)

    def __getattribute__(self, name: str) -> Any:
        if name == "hidden":
            object.__getattribute__(self, "seen").append(name)
        return object.__getattribute__(self, name)


def _raw(
    subject: Subject, configuration: Configuration, *, count: int = 8, seed: int = 0, declared: bool = True
) -> ResponseBatch:
    """Ranked responses of several prompts, with the fields that are declared, or with all."""
    needs = subject.needs(configuration) if declared else None
    batch: ResponseBatch = sample_of("lists", needs, count=count, seed=seed)
    return batch


def _of_policy(aggregation: Any, batch: ResponseBatch) -> Any:
    return aggregation(object.__getattribute__(batch, "logps"), object.__getattribute__(batch, "token_logps"), batch)


def _weighs_tokens(card: Card) -> bool:
    module, _, name = card.target.partition(":")
    try:
        with contained():
            target = getattr(importlib.import_module(module), name)
    except Exception:  # another rule tells
        return False
    return isinstance(target, type) and issubclass(target, Aggregation) and _weighs_by(target)


RULES = (
    Rule("declared-fields", "only fields of declared needs are read, and every declared need is", _declared_fields),
    Rule(
        "one-logp-per-response",
        "log-probs are finite and (R,), also for one prompt",
        _one_logp_per_response,
        ground=True,
    ),
    Rule("no-dead-option", "every option changes a log-prob", _no_dead_option),
    Rule("repeatable", "nothing is drawn and no state is kept", _repeatable),
    Rule("gradcheck", "gradients are those of the log-probs, in float64", _gradcheck),
    Rule("finite", "log-probs and gradients are finite at margins of ±500 and ±5000 nats, fp32 and bf16", _finite),
    Rule("of-its-prompt", "a log-prob depends on the responses of its prompt alone", _of_its_prompt_alone),
    Rule(
        "token-weights",
        "weights of tokens are constants of their prompt, the same in every pass",
        _token_weights,
        _weighs_tokens,
    ),
    Rule("any-label", "opposite labels change no log-prob", _whatever_the_label),
    Rule("any-model", "policy and reference are aggregated alike", whatever_the_model),
)
