"""Terms of an objective: a loss with its view of a step's responses, and a wrapper with its name."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch

from alignzoo.contract.aggregation import Aggregation
from alignzoo.contract.loss import PreferenceLoss, Reads
from alignzoo.contract.responses import DIFFERENTIABLE, KL, POLICY, ResponseBatch
from alignzoo.contract.robust import RobustWrapper
from alignzoo.objective.guard import a, blamed, fault, wrong

UNITS: dict[Reads, str] = {"pairs": "pair", "responses": "response", "lists": "list", "chosen": "response"}
"""The unit of a loss's values, by what it reads."""


class Aggregating(NamedTuple):
    """An aggregation under its name.

    Attributes:
        hidden: it needs hidden states to weigh tokens.
    """

    name: str
    method: Aggregation
    hidden: bool = False

    @property
    def weighs(self) -> bool:
        """Whether it weighs tokens before it is called."""
        return type(self.method).token_weights is not Aggregation.token_weights


@dataclass(frozen=True)
class Wrapping:
    """A wrapper of the preference term.

    Attributes:
        name: in metrics.
        coupled: its card says ``batch_coupled``.
    """

    wrapper: RobustWrapper
    name: str = "wrapper"
    coupled: bool = False


@dataclass(frozen=True)
class Term:
    """A loss in an objective.

    Attributes:
        name: in metrics.
        reads: of its card.
        weight: what its mean is multiplied by.
        aggregation: how the log-probs of tokens become those that it reads; None for sums.
        coupled: its values depend on the other pairs or responses of the step.
    """

    loss: PreferenceLoss
    name: str = "loss"
    reads: Reads = "pairs"
    weight: float = 1.0
    aggregation: Aggregating | None = None
    coupled: bool = False

    def aggregated(self, responses: ResponseBatch) -> ResponseBatch:
        """The responses with the log-probs that the loss reads, of policy and reference.

        Raises:
            MethodError: the aggregation fails, or does not return ``(R,)``.
        """
        if self.aggregation is None or responses.aggregation is not None:
            return responses
        name, method = self.aggregation.name, self.aggregation.method
        changed: dict[str, Any] = {"aggregation": name}
        for logps, tokens in (("logps", "token_logps"), ("ref_logps", "ref_token_logps")):
            summed = getattr(responses, logps)
            if summed is None:
                continue
            with blamed((method,), f"failed on {len(responses)} responses"):
                given = method(summed, getattr(responses, tokens), responses)
            if what := fault(given, summed.shape, differentiable=torch.is_grad_enabled() and summed.requires_grad):
                raise wrong(
                    method, type(method).__call__, what, "an aggregation returns one log-prob per response, (R,)"
                )
            changed[logps] = given
        return replace(responses, **changed)

    def view(self, responses: ResponseBatch) -> Any:
        """The loss's input: pairs or responses."""
        responses = self.aggregated(responses)
        if self.reads == "pairs":
            return responses.pairs()
        return responses.rows(responses.chosen_places()) if self.reads == "chosen" else responses

    def count(self, responses: ResponseBatch) -> int:
        """The number of values for these responses; known without reading tensors if they are paired."""
        if self.reads == "responses":
            return _policy(responses)
        if responses.paired:
            return len(responses) // 2
        if self.reads == "lists":
            return len(torch.unique_consecutive(responses.prompt))
        places = responses.pair_places()[0] if self.reads == "pairs" else responses.chosen_places()
        return len(responses.prompt[places])

    def prompts(self, responses: ResponseBatch) -> torch.Tensor:
        """``(N,)`` int64: the prompt of each value."""
        if self.reads == "responses":
            return responses.of_role(POLICY).prompt
        if self.reads == "lists":
            return torch.unique_consecutive(responses.prompt)
        places = responses.pair_places()[0] if self.reads == "pairs" else responses.chosen_places()
        return responses.prompt[places]

    def size(self, view: Any) -> int:
        """The values that the loss has for such a view."""
        if self.reads == "lists":
            return self.count(view)
        return _policy(view) if self.reads == "responses" else len(view)

    def values(self, view: Any) -> torch.Tensor:
        """``(N,)`` values of a view, as the loss returns them.

        Raises:
            MethodError: they are not.
        """
        values = self.loss(view)
        check_values(self, self.loss, type(self.loss).__call__, values, view)
        return values

    def rewards(self, view: Any) -> Any:
        """The loss's implicit rewards: ``(chosen, rejected)`` of pairs, each ``(N,)``; else ``(R,)`` of the responses
        that are no KL responses.

        Raises:
            MethodError: it fails, or returns something else.
        """
        size = len(view) if self.reads in ("pairs", "chosen") else _policy(view)
        with blamed((self.loss,), f"failed in rewards() on {size} {self._unit()}s"):
            given = self.loss.rewards(view)
        if self.reads != "pairs":
            what, due = fault(given, (size,)), "rewards() returns one per response, (R,)"
        elif isinstance(given, tuple) and len(given) == 2:
            what, due = fault(given[0], (size,)) or fault(given[1], (size,)), "rewards() returns two tensors, (B,) each"
        else:
            what, due = a(given), "rewards() returns two tensors, (B,) each"
        if what:
            raise wrong(self.loss, type(self.loss).rewards, what, due)
        return given

    def _unit(self) -> str:
        return "pair" if self.reads == "pairs" else "response"


def check_values(term: Term, method: Any, function: Any, values: Any, view: Any) -> None:
    """Check the shape of a loss's or wrapper's result on a view, so that a wrapper is not blamed for the loss's
    result.

    Raises:
        MethodError: the shape is wrong.
    """
    size, unit = term.size(view), UNITS[term.reads]
    inputs = view.present()
    differentiable = size > 0 and torch.is_grad_enabled()
    differentiable = differentiable and any(
        value.requires_grad for name, value in inputs.items() if name.endswith(DIFFERENTIABLE)
    )
    if what := fault(values, (size,), differentiable=differentiable):
        giver = "a loss" if method is term.loss else "per_pair()"
        shape = "(B,)" if unit == "pair" else "(N,)"
        due = f"{giver} returns one value per {unit}, {shape}, differentiable in the policy's log-probs"
        raise wrong(method, function, f"{what} for {size} {unit}s", due)


def _policy(responses: ResponseBatch) -> int:
    if responses.roles is None:
        return len(responses)
    return len(responses) - int((responses.roles == KL).sum())
