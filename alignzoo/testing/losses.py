"""Rules of losses: one value per pair, right gradients, nothing read or coupled that the card does not declare."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from alignzoo.contract.card import Card
from alignzoo.contract.pairs import PairBatch
from alignzoo.interfaces import GeometryController, PreferenceLoss
from alignzoo.lazy import torch
from alignzoo.testing.arithmetic import check_finite, check_gradient, check_vector, differ
from alignzoo.testing.common import every_option_matters
from alignzoo.testing.compare import EXACT, relative_error, same_however_cut, same_on_two_ranks, two_steps
from alignzoo.testing.outcomes import Rule, Violation
from alignzoo.testing.sample import ORDER, PARTS, leaves, sample, take, with_margin
from alignzoo.testing.spy import check_declared, reads
from alignzoo.testing.stages import AtTheWeights
from alignzoo.testing.stateful import check_state, warm
from alignzoo.testing.subject import Configuration, Subject

if TYPE_CHECKING:
    from alignzoo.objective.objective import Objective

MARGINS = (500.0, -500.0, 5000.0, -5000.0)


def one_value_per_pair(subject: Subject) -> None:
    for configuration, loss in _warm(subject):
        for count in (8, 1):
            pairs = _pairs(subject, configuration, count=count)
            check_vector(loss(pairs), pairs.chosen_logps, f"the values {configuration}")
            rewards = loss.rewards(pairs)
            if not (isinstance(rewards, tuple) and len(rewards) == 2):
                raise Violation(
                    expected="rewards() to return (chosen, rejected)",
                    found=f"a {type(rewards).__name__} {configuration}",
                    remedy="return two tensors (B,)",
                )
            for side, reward in zip(("chosen", "rejected"), rewards, strict=True):
                check_vector(reward, pairs.chosen_logps, f"the {side} rewards {configuration}")


def gradcheck(subject: Subject) -> None:
    for configuration, loss in _warm(subject):
        check_gradient(loss, _pairs(subject, configuration, count=4), str(configuration))


def finite(subject: Subject) -> None:
    for configuration, loss in _warm(subject):
        for dtype in (torch.float32, torch.bfloat16):
            for margin in MARGINS:
                given = with_margin(_pairs(subject, configuration), margin).to(dtype=dtype)
                pairs, inputs = leaves(given)
                values = loss(pairs)
                where = f"at a margin of {margin:g} nats in {str(dtype).removeprefix('torch.')}, {configuration}"
                grads = torch.autograd.grad(values.sum(), list(inputs.values()), allow_unused=True)
                check_finite({"values": values, "gradients": grads}, where)


def permutation(subject: Subject) -> None:
    order = torch.tensor(ORDER)
    for configuration, loss in _warm(subject):
        pairs = _pairs(subject, configuration)
        for name, ahead, after in zip(
            ("values", "chosen rewards", "rejected rewards"),
            _all(loss, pairs),
            _all(loss, pairs.rows(order)),
            strict=True,
        ):
            if not relative_error(after, ahead[order]) <= EXACT:
                raise Violation(
                    expected=f"the {name} of permuted pairs to be permuted {name}",
                    found=f"others {configuration}",
                    remedy="a pair's place in the batch must not matter, and value i belongs to pair i: where pairs "
                    "are coupled by rank, give each the value at its own rank",
                )


def independent_pairs(subject: Subject) -> None:
    if type(subject.build(subject.default)).observe is not PreferenceLoss.observe:
        raise Violation(
            expected="no observe() without batch_coupled in the card",
            found="one, which would never be called",
            remedy="declare batch_coupled=True, or take observe() out",
        )
    for configuration, loss in _warm(subject):
        pairs = _pairs(subject, configuration)
        whole = _all(loss, pairs)
        for index in map(torch.tensor, PARTS):
            for name, one, other in zip(
                ("value", "chosen reward", "rejected reward"), _all(loss, take(pairs, index)), whole, strict=True
            ):
                if not relative_error(one, other[index]) <= EXACT:
                    raise Violation(
                        expected=f"a pair's {name} not to depend on the other pairs, since the card has no "
                        "batch_coupled",
                        found=f"that it changes when other pairs are taken away, {configuration}",
                        remedy="declare batch_coupled=True, or compute it from the pair alone (padded token fields: "
                        "use the mask, not the width)",
                    )


def swap(subject: Subject) -> None:
    for configuration, loss in _warm(subject):
        pairs = _pairs(subject, configuration)
        chosen, rejected = loss.rewards(pairs)
        swapped = loss.rewards(pairs.swap())
        if not max(relative_error(swapped[0], rejected), relative_error(swapped[1], chosen)) <= EXACT:
            raise Violation(
                expected="the rewards of swapped pairs to be the rewards, swapped",
                found=f"others {configuration}",
                remedy="compute the reward of either side by the same formula",
            )


def declared_fields(subject: Subject) -> None:
    read: list[tuple[Configuration, set[str]]] = []
    for configuration in subject.configurations:
        loss = subject.build(configuration)
        with reads() as seen:
            if subject.card.batch_coupled:
                loss.observe(sample(seed=1))
            loss(sample())
            loss.rewards(sample())
        read.append((configuration, seen.fields))
    check_declared(subject, read)


def no_dead_option(subject: Subject) -> None:
    every_option_matters(subject, lambda a, b: differ(_behaviour(subject, a), _behaviour(subject, b)))


def state(subject: Subject) -> None:
    check_state(subject, _observe, _all)


def splits(subject: Subject) -> None:
    same_however_cut(subject, in_a_step, two_steps(subject), rule="splits")


def ranks(subject: Subject) -> None:
    same_on_two_ranks(subject, in_a_step, two_steps(subject))


def in_a_step(card: Card, loss: Any) -> tuple[Objective, GeometryController]:
    """The loss as the objective of a plain step."""
    from alignzoo.contract.card import Options
    from alignzoo.objective.objective import Objective

    return Objective(loss, coupled=card.batch_coupled), AtTheWeights(Options())


def _pairs(subject: Subject, configuration: Configuration, *, count: int = 8, seed: int = 0) -> PairBatch:
    return sample(subject.needs(configuration), count=count, seed=seed)


def _warm(subject: Subject) -> Iterator[tuple[Configuration, Any]]:
    return warm(subject, _observe)


def _observe(loss: Any, pairs: PairBatch) -> None:
    loss.observe(pairs)


def _all(loss: Any, pairs: PairBatch) -> list[torch.Tensor]:
    return [loss(pairs).detach(), *(reward.detach() for reward in loss.rewards(pairs))]


def _behaviour(subject: Subject, configuration: Configuration) -> list[torch.Tensor]:
    """All that an option can change: values, rewards and gradients over a few steps, near the reference and far."""
    loss = subject.build(configuration)
    found: list[torch.Tensor] = []
    for seed, spread in ((11, 0.5), (12, 0.5), (13, 5.0)):
        pairs = sample(subject.needs(configuration), seed=seed, spread=spread)
        if subject.card.batch_coupled:
            loss.observe(pairs)
        found += _all(loss, pairs)
        inputs, wanted = leaves(pairs)
        values = loss(replace(inputs))
        if values.requires_grad:
            grads = torch.autograd.grad(values.sum(), list(wanted.values()), allow_unused=True)
            found += [grad if grad is not None else torch.zeros(()) for grad in grads]
    return found


def _coupled(card: Card) -> bool:
    return card.batch_coupled


RULES = (
    Rule("declared-fields", "only fields of declared needs are read, and every declared need is", declared_fields),
    Rule(
        "one-value-per-pair",
        "values and rewards are finite and (B,), never reduced, also for one pair",
        one_value_per_pair,
        ground=True,
    ),
    Rule("no-dead-option", "every option changes a value, a reward or a gradient", no_dead_option),
    Rule("state", "state_dict is plain data, and all that a resumed run needs", state),
    Rule("gradcheck", "gradients are those of the values, in float64", gradcheck),
    Rule("finite", "values and gradients are finite at margins of ±500 and ±5000 nats, fp32 and bf16", finite),
    Rule("permutation", "permuting the pairs permutes values and rewards", permutation),
    Rule(
        "independent-pairs",
        "without batch_coupled, a pair's value does not depend on the others",
        independent_pairs,
        lambda card: not card.batch_coupled,
    ),
    Rule("swap", "swapping the sides swaps the rewards", swap),
    Rule("splits", "a step does not depend on how it is cut into micro-batches", splits, _coupled),
    Rule("ranks", "two ranks take the step that one takes", ranks, _coupled),
)
