"""Rules of losses: one value per pair, response or list, right gradients, nothing undeclared read or coupled."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from alignzoo.contract.card import Card
from alignzoo.contract.loss import LossCard
from alignzoo.contract.responses import POLICY, ResponseBatch
from alignzoo.interfaces import GeometryController, PreferenceLoss
from alignzoo.lazy import torch
from alignzoo.testing.arithmetic import check_finite, check_gradient, check_vector, differ
from alignzoo.testing.common import every_option_matters
from alignzoo.testing.compare import EXACT, relative_error, same_however_cut, same_on_two_ranks, two_steps
from alignzoo.testing.outcomes import Rule, Skipped, Violation
from alignzoo.testing.sample import ORDER, PARTS, leaves, sample_of, take, with_margin
from alignzoo.testing.spy import check_declared, reads
from alignzoo.testing.stages import AtTheWeights
from alignzoo.testing.stateful import check_metrics, check_state, warm
from alignzoo.testing.subject import Configuration, Subject

if TYPE_CHECKING:
    from alignzoo.objective.objective import Objective

UNITS = {"pairs": "pair", "responses": "response", "lists": "list", "chosen": "response"}
MARGINS = (500.0, -500.0, 5000.0, -5000.0)


def _one_value_per_pair(subject: Subject) -> None:
    for configuration, loss in _warm(subject):
        for count in (8, 1):
            batch = _batch(subject, configuration, count=count)
            like = torch.zeros(count, dtype=torch.float64)
            check_vector(loss(batch), like, f"the values {configuration}")
            for name, reward, size in _rewards(subject, loss, batch, str(configuration)):
                check_vector(reward, torch.zeros(size, dtype=torch.float64), f"the {name} {configuration}")


def _gradcheck(subject: Subject) -> None:
    for configuration, loss in _warm(subject):
        check_gradient(loss, _batch(subject, configuration, count=4), str(configuration))


def _finite(subject: Subject) -> None:
    for configuration, loss in _warm(subject):
        for dtype in (torch.float32, torch.bfloat16):
            for margin in MARGINS:
                given = with_margin(_batch(subject, configuration), margin).to(dtype=dtype)
                batch, inputs = leaves(given)
                values = loss(batch)
                where = f"at a margin of {margin:g} nats in {str(dtype).removeprefix('torch.')}, {configuration}"
                grads = torch.autograd.grad(values.sum(), list(inputs.values()), allow_unused=True)
                check_finite({"values": values, "gradients": grads}, where)


def _permutation(subject: Subject) -> None:
    order = torch.tensor(ORDER)
    for configuration, loss in _warm(subject):
        batch = _batch(subject, configuration)
        ahead, after = _named(subject, loss, batch), _named(subject, loss, take(batch, order))
        for name in ahead:
            if not relative_error(after[name], ahead[name][order]) <= EXACT:
                raise Violation(
                    expected=f"the {name} of permuted {UNITS[subject.reads]}s to be permuted {name}",
                    found=f"others {configuration}",
                    remedy="a place in the batch must not matter, and value i belongs to number i: where values are "
                    "coupled by rank, give each the value at its own rank",
                )
        if subject.reads == "lists" and not relative_error(loss(_turned_round(batch)), loss(batch)) <= EXACT:
            raise Violation(
                expected="the values of lists whose responses stand in another order with the same ranks to stay",
                found=f"others {configuration}",
                remedy="take the order from responses.lists(), and not from places",
            )


def _independent_pairs(subject: Subject) -> None:
    unit = UNITS[subject.reads]
    for configuration, loss in _warm(subject):
        if subject.coupled(configuration):
            continue
        batch = _batch(subject, configuration)
        whole = _named(subject, loss, batch)
        for index in map(torch.tensor, PARTS):
            for name, one in _named(subject, loss, take(batch, index)).items():
                if not relative_error(one, whole[name][index]) <= EXACT:
                    raise Violation(
                        expected=f"the {name} of a {unit} not to depend on the others, since the card has no "
                        "batch_coupled",
                        found=f"that they change when other {unit}s are taken away, {configuration}",
                        remedy="declare batch_coupled=True, or compute them from one alone (padded token fields: use "
                        "the mask, not the width)",
                    )


def swap(subject: Subject) -> None:
    """Of pairs the rewards change places; of responses they stay: what one earns is not a matter of its label."""
    for configuration, loss in _warm(subject):
        batch = _batch(subject, configuration)
        given, swapped = loss.rewards(batch), loss.rewards(batch.swap())
        both = zip((swapped[1], swapped[0]), given, strict=True) if subject.reads == "pairs" else [(swapped, given)]
        if not max(relative_error(one, other) for one, other in both) <= EXACT:
            raise Violation(
                expected="the rewards of swapped pairs to be the rewards, swapped"
                if subject.reads == "pairs"
                else "the same rewards under the opposite label",
                found=f"others {configuration}",
                remedy="compute the reward of every response by the same formula",
            )


def _declared_fields(subject: Subject) -> None:
    read: list[tuple[Configuration, set[str]]] = []
    for configuration in subject.configurations:
        loss = subject.build(configuration)
        with reads() as seen:
            loss.observe(sample_of(subject.reads, seed=1))
            loss(sample_of(subject.reads))
            loss.rewards(sample_of(subject.reads))
        read.append((configuration, seen.fields))
    check_declared(subject, read)


def _no_dead_option(subject: Subject) -> None:
    every_option_matters(subject, lambda a, b: differ(_behaviour(subject, a), _behaviour(subject, b)))


def _state(subject: Subject) -> None:
    check_state(subject, _observe, partial(_all, subject))


def _metrics(subject: Subject) -> None:
    if type(subject.build(subject.default)).metrics is PreferenceLoss.metrics:
        raise Skipped("metrics() is not overridden: there is nothing to log")
    check_metrics(subject, _observe, partial(_all, subject), lambda loss, batch: loss.metrics(batch), lent=frozenset())


def _splits(subject: Subject) -> None:
    same_however_cut(subject, in_a_step, two_steps(subject), rule="splits")


def _ranks(subject: Subject) -> None:
    same_on_two_ranks(subject, in_a_step, two_steps(subject))


def in_a_step(card: Card, loss: Any) -> tuple[Objective, GeometryController]:
    """The loss as the objective of a plain step."""
    from alignzoo.contract.card import Options
    from alignzoo.objective.objective import Objective
    from alignzoo.objective.terms import Term

    assert isinstance(card, LossCard)
    coupled = card.batch_coupled or loss.options.couples()
    return Objective([Term(loss, card.name, card.reads, coupled=coupled)]), AtTheWeights(Options())


def _batch(subject: Subject, configuration: Configuration, *, count: int = 8, seed: int = 0) -> Any:
    return sample_of(subject.reads, subject.needs(configuration), count=count, seed=seed)


def _warm(subject: Subject) -> Iterator[tuple[Configuration, Any]]:
    return warm(subject, _observe)


def _observe(loss: Any, batch: Any) -> None:
    loss.observe(batch)


def _rewards(subject: Subject, loss: Any, batch: Any, where: str) -> list[tuple[str, torch.Tensor, int]]:
    """Each tensor of ``rewards()`` with its name and the size that it should have."""
    given = loss.rewards(batch)
    if subject.reads != "pairs":
        return [("rewards", given, len(batch.of_role(POLICY)))]
    if not (isinstance(given, tuple) and len(given) == 2):
        raise Violation(
            expected="rewards() to return (chosen, rejected)",
            found=f"a {type(given).__name__} {where}",
            remedy="return two tensors (B,)",
        )
    return [("chosen rewards", given[0], len(batch)), ("rejected rewards", given[1], len(batch))]


def _turned_round(responses: ResponseBatch) -> ResponseBatch:
    """The responses of each prompt in the reverse order."""
    backwards = torch.arange(len(responses)).flip(0)
    return responses.rows(backwards[torch.argsort(responses.prompt[backwards], stable=True)])


def _named(subject: Subject, loss: Any, batch: Any) -> dict[str, torch.Tensor]:
    """Values and rewards, ``(N,)`` each; of a list the rewards of its responses as one number."""
    found = {"values": loss(batch).detach()}
    for name, reward, _ in _rewards(subject, loss, batch, "in a batch"):
        if subject.reads == "lists":
            places = torch.arange(len(batch)) - (batch.prompt[:, None] > batch.prompt[None, :]).sum(1)
            reward = reward.new_zeros(len(found["values"])).index_add(0, batch.prompt, (2.0 + places) * reward)
        found[name] = reward.detach()
    return found


def _all(subject: Subject, loss: Any, batch: Any) -> list[torch.Tensor]:
    return list(_named(subject, loss, batch).values())


def _behaviour(subject: Subject, configuration: Configuration) -> list[torch.Tensor]:
    """All that an option can change: values, rewards and gradients over a few steps, near the reference and far, and
    what is logged."""
    loss, coupled = subject.build(configuration), subject.coupled(configuration)
    found: list[torch.Tensor] = []
    for seed, spread in ((11, 0.5), (12, 0.5), (13, 5.0)):
        batch = sample_of(subject.reads, subject.needs(configuration), seed=seed, spread=spread)
        if coupled:
            loss.observe(batch)
        found += _all(subject, loss, batch)
        found += [torch.as_tensor(value) for value in loss.metrics(batch).values()]
        inputs, wanted = leaves(batch)
        values = loss(replace(inputs))
        if values.requires_grad:
            grads = torch.autograd.grad(values.sum(), list(wanted.values()), allow_unused=True)
            found += [grad if grad is not None else torch.zeros(()) for grad in grads]
        if not coupled:
            loss.observe(batch)
    return found


def _over_steps(card: Card) -> bool:
    """Not for values of pairs that do not depend on one another: there "independent-pairs" says as much."""
    assert isinstance(card, LossCard)
    return card.batch_coupled or card.reads != "pairs"


def _has_an_opposite(card: Card) -> bool:
    return isinstance(card, LossCard) and card.reads != "chosen"


RULES = (
    Rule("declared-fields", "only fields of declared needs are read, and every declared need is", _declared_fields),
    Rule(
        "one-value-per-pair",
        "values and rewards are finite and (N,), never reduced, also for one pair, response or list",
        _one_value_per_pair,
        ground=True,
    ),
    Rule("no-dead-option", "every option changes a value, a reward or a gradient", _no_dead_option),
    Rule("state", "state_dict is plain data, and all that a resumed run needs", _state),
    Rule("gradcheck", "gradients are those of the values, in float64", _gradcheck),
    Rule("finite", "values and gradients are finite at margins of ±500 and ±5000 nats, fp32 and bf16", _finite),
    Rule("permutation", "permuting pairs, responses or lists permutes values and rewards", _permutation),
    Rule(
        "independent-pairs",
        "without batch_coupled, a value does not depend on the others",
        _independent_pairs,
        lambda card: not getattr(card, "batch_coupled", False),
    ),
    Rule(
        "swap", "swapping the sides of pairs swaps the rewards, and labels do not change them", swap, _has_an_opposite
    ),
    Rule("metrics", "metrics() gives finite numbers, and leaves the method as it was", _metrics),
    Rule("splits", "a step does not depend on how it is cut into micro-batches", _splits, _over_steps),
    Rule("ranks", "two ranks take the step that one takes", _ranks, _over_steps),
)
