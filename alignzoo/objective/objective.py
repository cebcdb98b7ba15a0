"""Losses, wrappers and aggregations as one differentiable function of a step's ``ResponseBatch``.

The model enters the objective only through a few numbers per response. So the gradient of the whole step's objective
with respect to those numbers (the *cotangent*) is exact whatever couples the responses, and pushing it back through the
micro-batches one by one gives the gradient of the weights, however the step was cut.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from alignzoo.contract.card import Options
from alignzoo.contract.loss import PreferenceLoss
from alignzoo.contract.method import Method
from alignzoo.contract.responses import DIFFERENTIABLE, ResponseBatch
from alignzoo.contract.robust import RobustWrapper, Values
from alignzoo.errors import MethodError
from alignzoo.objective.guard import blamed, fault, wrong
from alignzoo.objective.logged import floats, numbers
from alignzoo.objective.terms import UNITS, Aggregating, Term, Wrapping, check_values


class Objective:
    """A weighted sum of terms. The first is the preference term: wrappers apply to it alone, the first wrapper
    innermost. The others are plain means over their own values.

    Args:
        terms: at least one; a bare loss is one term that reads pairs.
        wrappers: at most one of them aggregates (the resolver ensures it).
        coupled: for a bare loss and wrappers: whether a value's contribution depends on the others.
    """

    def __init__(
        self,
        terms: PreferenceLoss | Sequence[Term],
        wrappers: Sequence[RobustWrapper | Wrapping] = (),
        *,
        coupled: bool = False,
    ) -> None:
        self.terms = [Term(terms, coupled=coupled)] if isinstance(terms, PreferenceLoss) else list(terms)
        self.wrappings = [w if isinstance(w, Wrapping) else Wrapping(w, coupled=coupled) for w in wrappers]
        aggregating = [w for w in self.wrappers if _aggregates(w)]
        if len(aggregating) > 1:
            names = " and ".join(type(w).__name__ for w in aggregating)
            raise MethodError(f"{names} each define their own objective; their cards must say `aggregates`")
        self.aggregator = aggregating[0] if aggregating else RobustWrapper(Options())
        parts = [term.coupled for term in self.terms] + [wrapping.coupled for wrapping in self.wrappings]
        self.coupled = coupled or bool(aggregating) or any(parts)

    @property
    def preference(self) -> Term:
        """The wrapped term, whose rewards are logged."""
        return self.terms[0]

    @property
    def loss(self) -> PreferenceLoss:
        """The loss of the preference term."""
        return self.preference.loss

    @property
    def wrappers(self) -> list[RobustWrapper]:
        return [wrapping.wrapper for wrapping in self.wrappings]

    @property
    def weighing(self) -> Aggregating | None:
        """The aggregation that weighs tokens in every forward pass, if there is one."""
        found = (term.aggregation for term in self.terms)
        return next((given for given in found if given is not None and given.weighs), None)

    def methods(self) -> dict[str, list[Method]]:
        """All methods by kind, in order."""
        found: dict[str, list[Method]] = {"loss": [], "aggregation": [], "robust": list(self.wrappers)}
        for term in self.terms:
            found["loss"].append(term.loss)
            if term.aggregation is not None and term.aggregation.method not in found["aggregation"]:
                found["aggregation"].append(term.aggregation.method)
        return found

    def values(self, responses: ResponseBatch) -> torch.Tensor:
        """``(N,)`` values of the preference term, inside all wrappers' ``per_pair``."""
        return self._wrapped(self.preference.view(responses))

    def by_prompt(self, responses: ResponseBatch) -> torch.Tensor:
        """``(P,)``: the mean of :meth:`values` per prompt, 0 for prompts without values."""
        values = self.values(responses)
        if responses.paired and self.preference.reads != "responses":
            return values
        prompts = self.preference.prompts(responses)
        sums = values.new_zeros(int(responses.prompt[-1]) + 1)
        counts = sums.index_add(0, prompts, torch.ones_like(values)).clamp(min=1)
        return sums.index_add(0, prompts, values) / counts

    def value(self, responses: ResponseBatch) -> torch.Tensor:
        """The scalar objective of a whole step's responses."""
        return self._added_up(self._by_term(responses))

    def counts(self, responses: ResponseBatch) -> list[int]:
        """The number of values of each term for these responses."""
        return [term.count(responses) for term in self.terms]

    def cotangents(
        self, responses: ResponseBatch, *, of: Sequence[int] | None = None
    ) -> tuple[torch.Tensor, ResponseBatch]:
        """The objective and its gradient with respect to the policy's fields.

        Args:
            responses: the whole step's; or, for an objective that is a plain mean over values, some of them.
            of: how many values each term has in the step when ``responses`` are only some of it: the value and the
                gradient are then their share of the means.

        Returns:
            the value ``()``, detached, and a ``ResponseBatch`` holding the cotangent of every differentiable field
            (zero where the objective does not read it).
        """
        present = responses.detach().present()
        leaves: dict[str, Any] = {n: v.requires_grad_(True) for n, v in present.items() if n in DIFFERENTIABLE}
        with torch.enable_grad():
            inputs = replace(responses.detach(), **leaves)
            value = self.value(inputs) if of is None else self._share(inputs, of)
            grads = torch.autograd.grad(value, list(leaves.values()), allow_unused=True)
        cotangents: dict[str, Any] = {
            name: torch.zeros_like(leaf) if grad is None else grad
            for (name, leaf), grad in zip(leaves.items(), grads, strict=True)
        }
        return value.detach(), replace(responses.detach(), **cotangents)

    def weights(self, responses: ResponseBatch) -> torch.Tensor:
        """The weight of each value of the preference term in a step, ``(N,)``, detached."""
        view = self.preference.view(responses)
        with torch.no_grad():
            losses = self._wrapped(view)
        with blamed((self.aggregator,), f"failed in weights() on {self._these(losses)}"):
            weights = self.aggregator.weights_in(losses, view)
        if what := fault(weights, losses.shape):
            due = f"weights() returns one per {UNITS[self.preference.reads]}, (N,)"
            raise wrong(self.aggregator, type(self.aggregator).weights, what, due)
        return weights

    def observes(self, *, coupled: bool) -> bool:
        """Whether any method, batch-coupled or not as given, keeps running statistics."""
        return any(term.coupled == coupled and _watches(term.loss, PreferenceLoss) for term in self.terms) or any(
            w.coupled == coupled and _learns(w.wrapper) for w in self.wrappings
        )

    def observe(self, responses: ResponseBatch, *, coupled: bool) -> None:
        """Update running statistics once with the step's responses: batch-coupled methods before the step's first
        evaluation, the others after the step."""
        if not self.observes(coupled=coupled):
            return
        responses = responses.detach()
        for term in self.terms:
            if term.coupled == coupled and _watches(term.loss, PreferenceLoss):
                with blamed((term.loss,), f"failed in observe() on {len(responses)} responses"):
                    term.loss.observe(term.view(responses))
        watching = [i for i, w in enumerate(self.wrappings) if w.coupled == coupled and _learns(w.wrapper)]
        if not watching:
            return
        view = self.preference.view(responses)
        with torch.no_grad():
            losses = self._wrapped(view)
            if len(losses) == 0:
                return
            for i in watching:
                wrapper, inside = self.wrappers[i], self._stacked(self.wrappers[:i])
                with blamed((wrapper,), f"failed in observe() on {self._these(losses)}"):
                    wrapper.observe(losses, view)
                    wrapper.observe_inside(inside, view)

    @torch.no_grad()
    def metrics(self, responses: ResponseBatch) -> dict[str, float]:
        """The methods' metrics: ``loss/NAME/KEY``, ``robust/NAME/KEY``, and with several terms ``loss/NAME/value``,
        before weighting."""
        responses = responses.detach()
        found: dict[str, float | torch.Tensor] = {}
        if len(self.terms) > 1:
            found |= {
                f"loss/{term.name}/value": value
                for term, value in zip(self.terms, self._by_term(responses), strict=True)
            }
        for term in self.terms:
            if type(term.loss).metrics is not PreferenceLoss.metrics:
                with blamed((term.loss,), f"failed in metrics() on {len(responses)} responses"):
                    given = term.loss.metrics(term.view(responses))
                found |= numbers(term.loss, f"loss/{term.name}", given)
        logging = [w for w in self.wrappings if type(w.wrapper).metrics is not RobustWrapper.metrics]
        if logging:
            view = self.preference.view(responses)
            losses = self._wrapped(view)
            for w in logging:
                with blamed((w.wrapper,), f"failed in metrics() on {self._these(losses)}"):
                    given = w.wrapper.metrics(losses, view)
                found |= numbers(w.wrapper, f"robust/{w.name}", given)
        return floats(found)

    def _wrapped(self, view: Any) -> torch.Tensor:
        """``(N,)`` values of a view of the preference term."""
        term = self.preference
        if term.size(view) == 0:
            return _none_of(view)
        with blamed((self.loss, *self.wrappers), f"failed on {term.size(view)} {UNITS[term.reads]}s"):
            return self._stacked(self.wrappers)(view)

    def _stacked(self, wrappers: Sequence[RobustWrapper]) -> Values:
        """The loss under these wrappers."""
        value: Values = self.preference.values
        for wrapper in wrappers:
            value = _around(self.preference, wrapper, value)
        return value

    def _others(self, responses: ResponseBatch) -> list[torch.Tensor]:
        """The values ``(N,)`` of each term but the first."""
        found = []
        for term in self.terms[1:]:
            view = term.view(responses)
            size = term.size(view)
            with blamed((term.loss,), f"failed on {size} {UNITS[term.reads]}s"):
                found.append(term.values(view) if size else _none_of(view))
        return found

    def _by_term(self, responses: ResponseBatch) -> list[torch.Tensor]:
        """The scalar of each term before weighting; 0 for a term without values."""
        view = self.preference.view(responses)
        losses = self._wrapped(view)
        with blamed((self.aggregator,), f"failed in objective() on {self._these(losses)}"):
            value = self.aggregator.reduce(losses, view) if len(losses) else losses.sum()
        if what := fault(value, (), differentiable=losses.requires_grad):
            own = type(self.aggregator)
            name = "objective" if own.reduce is RobustWrapper.reduce else "reduce"
            raise wrong(self.aggregator, getattr(own, name), what, f"{name}() returns a scalar, ()")
        return [value, *(values.sum() / max(1, len(values)) for values in self._others(responses))]

    def _share(self, responses: ResponseBatch, of: Sequence[int]) -> torch.Tensor:
        """A subset of responses' share of an objective of plain means, given each term's number of values."""
        every = [self.values(responses), *self._others(responses)]
        return self._added_up([values.sum() / max(1, count) for values, count in zip(every, of, strict=True)])

    def _added_up(self, scalars: Sequence[torch.Tensor]) -> torch.Tensor:
        """The weighted sum of the terms' scalars ``()``."""
        weighted = [
            value if term.weight == 1 else term.weight * value for term, value in zip(self.terms, scalars, strict=True)
        ]
        return weighted[0] if len(weighted) == 1 else torch.stack(weighted).sum()

    def _these(self, losses: torch.Tensor) -> str:
        return f"{len(losses)} {UNITS[self.preference.reads]}s"


def pull_back(responses: ResponseBatch, cotangents: ResponseBatch) -> torch.Tensor:
    """The scalar whose gradient is the vector-Jacobian product: ``Σ fields · cotangents`` in the fields' dtype."""
    total = None
    for name in DIFFERENTIABLE:
        field, cotangent = getattr(responses, name), getattr(cotangents, name)
        if field is not None and cotangent is not None:
            if field.dim() == 2:  # a micro-batch's T may be smaller than the whole step's
                cotangent = cotangent[:, : field.shape[1]]
            term = (field * cotangent.to(field.dtype)).sum()
            total = term if total is None else total + term
    assert total is not None
    return total


def _around(term: Term, wrapper: RobustWrapper, inner: Values) -> Values:
    def outer(view: Any) -> torch.Tensor:
        values = wrapper.per_pair(inner, view)
        check_values(term, wrapper, type(wrapper).per_pair, values, view)
        return values

    return outer


def _none_of(view: Any) -> torch.Tensor:
    """No values, ``(0,)``."""
    field: torch.Tensor = next(value for name, value in view.present().items() if name.endswith("logps"))
    return field[:0]


def _aggregates(wrapper: RobustWrapper) -> bool:
    own = type(wrapper)
    return own.objective is not RobustWrapper.objective or own.reduce is not RobustWrapper.reduce


def _learns(wrapper: RobustWrapper) -> bool:
    return _watches(wrapper, RobustWrapper) or type(wrapper).observe_inside is not RobustWrapper.observe_inside


def _watches(method: Any, base: Any) -> bool:
    return type(method).observe is not base.observe
