"""Rules of robust wrappers, tried on top of the kit's own logistic loss."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from alignzoo.contract.card import Card, Need, Options
from alignzoo.contract.pairs import PairBatch
from alignzoo.contract.robust import RobustCard
from alignzoo.interfaces import GeometryController, RobustWrapper
from alignzoo.lazy import torch
from alignzoo.testing.arithmetic import check_finite, check_gradient, check_vector, differ
from alignzoo.testing.around import AROUND
from alignzoo.testing.common import every_option_matters
from alignzoo.testing.compare import EXACT, relative_error, same_however_cut, same_on_two_ranks, two_steps
from alignzoo.testing.outcomes import Rule, Skipped, Violation
from alignzoo.testing.sample import ORDER, PARTS, leaves, sample, take, with_margin
from alignzoo.testing.spy import check_declared, reads
from alignzoo.testing.stages import AtTheWeights, logistic
from alignzoo.testing.stateful import check_metrics, check_state, warm
from alignzoo.testing.subject import Configuration, Subject
from alignzoo.testing.swaps import DECLARED_SWAP

if TYPE_CHECKING:
    from alignzoo.objective.objective import Objective

LENT: frozenset[Need] = frozenset({"reference"})
"""What the loss under the wrapper reads."""
CLOSED_FORM = 1e-6
EXTREMES = (500.0, -500.0, 5000.0, -5000.0)


def _shapes(subject: Subject) -> None:
    for configuration, wrapper in _warm(subject):
        for count in (8, 1):
            pairs = _pairs(subject, configuration, count=count)
            losses = wrapper.per_pair(logistic(), pairs)
            check_vector(losses, pairs.chosen_logps, f"per_pair() {configuration}")
            value, weights = wrapper.reduce(losses, pairs), wrapper.weights_in(losses, pairs)
            if not isinstance(value, torch.Tensor) or value.shape != ():
                raise Violation(
                    expected="objective() to be a scalar tensor",
                    found=f"{value!r} {configuration}"[:120],
                    remedy="reduce all values to one number, with torch",
                )
            check_vector(weights, losses, f"weights() {configuration}")
            if weights.requires_grad:
                raise Violation(
                    expected="weights() to be detached",
                    found=f"a tensor that asks for gradients {configuration}",
                    remedy="compute them from losses.detach()",
                )


def _gradcheck(subject: Subject) -> None:
    for configuration, wrapper in _warm(subject):
        check_gradient(
            lambda pairs, wrapper=wrapper: wrapper.reduce(wrapper.per_pair(logistic(), pairs), pairs),  # type: ignore[misc]
            _pairs(subject, configuration, count=4),
            str(configuration),
        )


def _weights_are_the_gradient(subject: Subject) -> None:
    if type(subject.build(subject.default)).weights is RobustWrapper.weights:
        raise Skipped("weights() is not overridden: it is the gradient by construction")
    for configuration, wrapper in _warm(subject):
        for losses in _loss_vectors():
            error = relative_error(wrapper.weights(losses), RobustWrapper.weights(wrapper, losses))
            if not error <= CLOSED_FORM:
                raise Violation(
                    expected="weights() to be the gradient of objective()",
                    found=f"a relative difference of {error:.2g} {configuration}",
                    remedy="correct the closed form, or take weights() out: the gradient is the default",
                )


def _finite(subject: Subject) -> None:
    for configuration, wrapper in _warm(subject):
        for extreme in EXTREMES:
            for given in ([extreme, 0.7, 0.2, 1.3], [extreme] * 4, [extreme, -extreme, 0.7, 0.2], [extreme]):
                leaf = torch.tensor(given, dtype=torch.float32, requires_grad=True)
                pairs = _pairs(subject, configuration, count=len(given)).to(dtype=torch.float32)
                value = wrapper.reduce(leaf, pairs)
                (gradient,) = torch.autograd.grad(value, leaf)
                weights = wrapper.weights_in(leaf.detach(), pairs)
                results = {"objective": value, "gradient": gradient, "weights": weights}
                check_finite(results, f"where losses reach {extreme:g}, {configuration}")
            _finite_values(subject, configuration, wrapper, extreme)


def _finite_values(subject: Subject, configuration: Configuration, wrapper: Any, margin: float) -> None:
    """Values of pairs whose log-probs are far apart, and their gradients."""
    every = with_margin(sample(), margin).to(dtype=torch.float32)
    declared = _pairs(subject, configuration).present()
    without: dict[str, Any] = {name: None for name in every.present() if name not in declared}
    pairs, wanted = leaves(replace(every, **without))
    values = wrapper.per_pair(logistic(), pairs)
    gradients = torch.autograd.grad(values.sum(), list(wanted.values()), allow_unused=True)
    check_finite({"per_pair": values, "gradients": gradients}, f"at a margin of {margin:g} nats, {configuration}")


def _permutation(subject: Subject) -> None:
    order = torch.tensor(ORDER)
    for configuration, wrapper in _warm(subject):
        pairs = _pairs(subject, configuration)
        found = {"per_pair()": (_values(wrapper, pairs.rows(order)), _values(wrapper, pairs)[order])}
        for losses in _loss_vectors():
            found["objective()"] = wrapper.reduce(losses[order], pairs.rows(order)), wrapper.reduce(losses, pairs)
            found["weights()"] = (
                wrapper.weights_in(losses[order], pairs.rows(order)),
                wrapper.weights_in(losses, pairs)[order],
            )
            for name, (after, ahead) in found.items():
                if not relative_error(after, ahead) <= EXACT:
                    raise Violation(
                        expected=f"{name} not to depend on the order of the pairs",
                        found=f"that it does {configuration}",
                        remedy="a pair's place in the step must not matter",
                    )


def _declared_coupling(subject: Subject) -> None:
    card, kind = _card(subject.card), type(subject.build(subject.default))
    own_objective = kind.objective is not RobustWrapper.objective or kind.reduce is not RobustWrapper.reduce
    changes_values = card.batch_coupled and kind.per_pair is not RobustWrapper.per_pair
    if own_objective and not card.aggregates:
        raise Violation(
            expected="aggregates=True",
            found="a card without it, and an objective() of its own",
            remedy="declare it: a run has room for one such wrapper",
        )
    if card.aggregates and not (own_objective or changes_values):
        raise Violation(
            expected="an objective() of its own, or values that depend on the step, since the card says aggregates",
            found="the plain mean",
            remedy="take aggregates out",
        )
    if not card.batch_coupled and own_objective:
        raise Violation(
            expected="batch_coupled=True",
            found="a card without it, and an objective() of its own",
            remedy="declare batch_coupled=True: else it never sees the whole step",
        )
    if card.batch_coupled:
        return
    for configuration, wrapper in _warm(subject):
        pairs = _pairs(subject, configuration)
        whole = _values(wrapper, pairs)
        for index in map(torch.tensor, PARTS):
            if not relative_error(_values(wrapper, take(pairs, index)), whole[index]) <= EXACT:
                raise Violation(
                    expected="per_pair() of a pair not to depend on the others, since the card has no batch_coupled",
                    found=f"that it changes when other pairs are taken away, {configuration}",
                    remedy="declare batch_coupled=True, or compute it from the pair alone",
                )


def _declared_fields(subject: Subject) -> None:
    read: list[tuple[Configuration, set[str]]] = []
    for configuration in subject.configurations:
        wrapper, loss = subject.build(configuration), logistic()
        with reads() as seen:

            def inner(pairs: PairBatch, seen: Any = seen, loss: Any = loss) -> torch.Tensor:
                with seen.paused():
                    values: torch.Tensor = loss(pairs)
                    return values

            wrapper.observe(inner(sample(seed=1)), sample(seed=1))
            wrapper.observe_inside(inner, sample(seed=1))
            wrapper.reduce(wrapper.per_pair(inner, sample()), sample())
        read.append((configuration, seen.fields))
    check_declared(subject, read)


def _no_dead_option(subject: Subject) -> None:
    every_option_matters(subject, lambda a, b: differ(_behaviour(subject, a), _behaviour(subject, b)))


def _state(subject: Subject) -> None:
    check_state(subject, _observe, _all, lent=LENT)


def _metrics(subject: Subject) -> None:
    if type(subject.build(subject.default)).metrics is RobustWrapper.metrics:
        raise Skipped("metrics() is not overridden: there is nothing to log")
    check_metrics(subject, _observe, _all, lambda w, pairs: w.metrics(_values(w, pairs), pairs), lent=LENT)


def _card(card: Card) -> RobustCard:
    assert isinstance(card, RobustCard)
    return card


def _splits(subject: Subject) -> None:
    same_however_cut(subject, in_a_step, two_steps(subject), rule="splits")


def _ranks(subject: Subject) -> None:
    same_on_two_ranks(subject, in_a_step, two_steps(subject))


def in_a_step(card: Card, wrapper: Any) -> tuple[Objective, GeometryController]:
    """The wrapper over the kit's loss as the objective of a plain step."""
    from alignzoo.objective.objective import Objective
    from alignzoo.objective.terms import Term, Wrapping

    coupled = _card(card).batch_coupled or wrapper.options.couples()
    return Objective([Term(logistic())], [Wrapping(wrapper, card.name, coupled)]), AtTheWeights(Options())


def _pairs(subject: Subject, configuration: Configuration, *, count: int = 8, seed: int = 0) -> PairBatch:
    return sample(subject.needs(configuration) | LENT, count=count, seed=seed)


def _warm(subject: Subject) -> Iterator[tuple[Configuration, Any]]:
    return warm(subject, _observe, lent=LENT)


def _observe(wrapper: Any, pairs: PairBatch) -> None:
    """As a step does it: the values are those under the wrapper."""
    with torch.no_grad():
        wrapper.observe(_values(wrapper, pairs), pairs)
        wrapper.observe_inside(logistic(), pairs)


def _values(wrapper: Any, pairs: PairBatch) -> torch.Tensor:
    values: torch.Tensor = wrapper.per_pair(logistic(), pairs)
    return values.detach()


def _loss_vectors() -> list[torch.Tensor]:
    """Losses of eight pairs, alike and far apart."""
    draw = torch.Generator().manual_seed(3)
    return [scale * torch.randn(8, generator=draw, dtype=torch.float64) + 0.7 for scale in (0.5, 5.0)]


def _all(wrapper: Any, pairs: PairBatch) -> list[torch.Tensor]:
    values = _values(wrapper, pairs)
    found = [values]
    for losses in (values, *_loss_vectors()):
        found += [wrapper.reduce(losses, pairs).detach(), wrapper.weights_in(losses, pairs)]
    return found


def _behaviour(subject: Subject, configuration: Configuration) -> list[torch.Tensor]:
    """All that an option can change: values, objective, weights and gradients over a few steps."""
    wrapper = subject.build(configuration)
    found: list[torch.Tensor] = []
    for seed in (11, 12, 13):
        if subject.coupled(configuration):
            _observe(wrapper, _pairs(subject, configuration, seed=seed))
        pairs, wanted = leaves(_pairs(subject, configuration, seed=seed))
        found += _all(wrapper, pairs)
        value = wrapper.reduce(wrapper.per_pair(logistic(), pairs), pairs)
        if value.requires_grad:
            grads = torch.autograd.grad(value, list(wanted.values()), allow_unused=True)
            found += [grad if grad is not None else torch.zeros(()) for grad in grads]
        logged = wrapper.metrics(_values(wrapper, pairs), pairs)
        found += [torch.as_tensor(value) for value in logged.values()]
        if not subject.coupled(configuration):
            _observe(wrapper, _pairs(subject, configuration, seed=seed))
    return found


RULES = (
    Rule("declared-fields", "only fields of declared needs are read, and every declared need is", _declared_fields),
    Rule("shapes", "values are (B,), the objective is a scalar, weights are (N,) and detached", _shapes, ground=True),
    Rule("no-dead-option", "every option changes a value, a weight or a gradient", _no_dead_option),
    Rule("state", "state_dict is plain data, and all that a resumed run needs", _state),
    Rule("gradcheck", "the gradient of the objective is that of its value, in float64", _gradcheck),
    Rule("weights-are-the-gradient", "weights of its own are the objective's gradient", _weights_are_the_gradient),
    Rule("finite", "values, weights and gradients are finite where losses or margins reach ±500 and ±5000", _finite),
    Rule("permutation", "the order of the pairs does not matter", _permutation),
    Rule("declared-coupling", "aggregates and batch_coupled say what the wrapper does", _declared_coupling),
    DECLARED_SWAP,
    AROUND,
    Rule("metrics", "metrics() gives finite numbers, and leaves the method as it was", _metrics),
    Rule("splits", "a step does not depend on how it is cut into micro-batches", _splits),
    Rule("ranks", "two ranks take the step that one takes", _ranks),
)
