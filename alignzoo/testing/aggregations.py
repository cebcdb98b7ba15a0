"""Rules of aggregations: one log-prob per response, from its own tokens, alike for policy and reference."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from alignzoo.contract.responses import ResponseBatch
from alignzoo.lazy import torch
from alignzoo.testing.arithmetic import check_finite, check_gradient, check_vector, differ
from alignzoo.testing.common import every_option_matters
from alignzoo.testing.compare import EXACT, relative_error
from alignzoo.testing.outcomes import Rule, Violation
from alignzoo.testing.sample import ORDER, PARTS, leaves, sample_of, take, with_margin
from alignzoo.testing.spy import check_declared, reads
from alignzoo.testing.subject import Configuration, Subject

OF_A_MODEL = ("logps", "ref_logps", "token_logps", "ref_token_logps")
MARGINS = (500.0, -500.0, 5000.0, -5000.0)


def _one_logp_per_response(subject: Subject) -> None:
    for configuration, aggregation in _built(subject):
        for count in (8, 1):
            batch = _batch(subject, configuration, count=count)
            check_vector(_of_policy(aggregation, batch), batch.logps, f"the log-probs {configuration}")


def _gradcheck(subject: Subject) -> None:
    for configuration, aggregation in _built(subject):
        check_gradient(partial(_of_policy, aggregation), _batch(subject, configuration, count=3), str(configuration))


def _finite(subject: Subject) -> None:
    for configuration, aggregation in _built(subject):
        for dtype in (torch.float32, torch.bfloat16):
            for margin in MARGINS:
                batch, inputs = leaves(with_margin(_batch(subject, configuration), margin).to(dtype=dtype))
                found = _of_policy(aggregation, batch)
                grads = torch.autograd.grad(found.sum(), list(inputs.values()), allow_unused=True)
                where = f"at a log-prob lowered by {abs(margin):g} nats in {dtype}, {configuration}"
                check_finite({"log-probs": found, "gradients": grads}, where)


def _of_its_prompt_alone(subject: Subject) -> None:
    for configuration, aggregation in _built(subject):
        batch = _batch(subject, configuration)
        whole = _of_policy(aggregation, batch)
        for index in map(torch.tensor, (*PARTS, ORDER)):
            places = torch.cat([(batch.prompt == prompt).nonzero().flatten() for prompt in index])
            if not relative_error(_of_policy(aggregation, take(batch, index)), whole[places]) <= EXACT:
                raise Violation(
                    expected="a response's log-prob to be that of its own tokens and its prompt's responses",
                    found=f"another when the other prompts are taken away or moved, {configuration}",
                    remedy="compare lengths within `responses.prompt` only, and use the mask, not the width",
                )


def _whatever_the_label(subject: Subject) -> None:
    for configuration, aggregation in _built(subject):
        batch = _batch(subject, configuration)
        if differ([_of_policy(aggregation, batch)], [_of_policy(aggregation, batch.swap())]):
            raise Violation(
                expected="the same log-probs under the opposite labels",
                found=f"others {configuration}",
                remedy="do not read labels or ranks: a swapped pair has the log-probs of the pair",
            )


def whatever_the_model(subject: Subject) -> None:
    """Policy and reference are aggregated alike where only what is given as an argument is of the model."""
    for configuration, aggregation in _built(subject):
        batch = _batch(subject, configuration)
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
        batch, inputs = leaves(_batch(subject, configuration, declared=False))
        tokens = inputs["token_logps"]
        with reads() as seen:
            found = aggregation(inputs["logps"], tokens, batch)
        (grad,) = torch.autograd.grad(found.sum(), tokens, allow_unused=True)
        fields = set(seen.fields) | ({"token_logps"} if grad is not None and bool(grad.any()) else set())
        read.append((configuration, fields))
    check_declared(subject, read)


def _no_dead_option(subject: Subject) -> None:
    def behaviour(configuration: Configuration) -> list[torch.Tensor]:
        aggregation = subject.build(configuration)
        return [_of_policy(aggregation, _batch(subject, configuration, seed=seed)).detach() for seed in (11, 12)]

    every_option_matters(subject, lambda a, b: differ(behaviour(a), behaviour(b)))


def _repeatable(subject: Subject) -> None:
    for configuration, aggregation in _built(subject):
        batch = _batch(subject, configuration)
        if differ([_of_policy(aggregation, batch)], [_of_policy(aggregation, batch)]):
            raise Violation(
                expected="two evaluations of the same batch to be the same",
                found=f"others {configuration}",
                remedy="draw nothing at random and keep no state: a step is evaluated several times",
            )


def _built(subject: Subject) -> Iterator[tuple[Configuration, Any]]:
    for configuration in subject.configurations:
        yield configuration, subject.build(configuration)


def _batch(
    subject: Subject, configuration: Configuration, *, count: int = 8, seed: int = 0, declared: bool = True
) -> ResponseBatch:
    """Ranked responses of several prompts, with the fields that are declared, or with all."""
    needs = subject.needs(configuration) if declared else None
    batch: ResponseBatch = sample_of("lists", needs, count=count, seed=seed)
    return batch


def _of_policy(aggregation: Any, batch: ResponseBatch) -> Any:
    return aggregation(object.__getattribute__(batch, "logps"), object.__getattribute__(batch, "token_logps"), batch)


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
    Rule("any-label", "opposite labels change no log-prob", _whatever_the_label),
    Rule("any-model", "policy and reference are aggregated alike", whatever_the_model),
)
