"""Loss and wrappers as one differentiable function of a step's ``PairBatch``.

The model enters the objective only through a few numbers per pair. So the gradient of the whole step's objective with
respect to those numbers (the *cotangent*) is exact whatever couples the pairs, and pushing it back through the
micro-batches one by one gives the gradient of the weights, however the step was cut.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from alignzoo.contract.card import Options
from alignzoo.contract.pairs import DIFFERENTIABLE, PairBatch
from alignzoo.errors import AlignzooError, MethodError, contained
from alignzoo.interfaces import GeometryController, PerPair, PreferenceLoss, RobustWrapper
from alignzoo.plugin.blame import place_in, place_of
from alignzoo.plugin.faults import describe_error, package_of


class Objective:
    """A loss under a stack of wrappers, the first wrapper innermost.

    Args:
        loss: the preference loss.
        wrappers: robust wrappers; at most one of them aggregates (the resolver sees to it).
        controllers: of these, the ones with a :meth:`~GeometryController.per_pair` of their own lie around the loss,
            inside of all wrappers.
        coupled: a pair's contribution depends on the other pairs of the step.
    """

    def __init__(
        self,
        loss: PreferenceLoss,
        wrappers: Sequence[RobustWrapper] = (),
        *,
        controllers: Sequence[GeometryController] = (),
        coupled: bool = False,
    ) -> None:
        self.loss = loss
        self.wrappers = list(wrappers)
        inner = [c for c in controllers if type(c).per_pair is not GeometryController.per_pair]
        self.layers: list[RobustWrapper | GeometryController] = [*inner, *self.wrappers]
        aggregating = [w for w in self.wrappers if type(w).objective is not RobustWrapper.objective]
        if len(aggregating) > 1:
            names = " and ".join(type(w).__name__ for w in aggregating)
            raise MethodError(f"{names} each have an objective of their own; their cards must say `aggregates`")
        self.aggregator = aggregating[0] if aggregating else RobustWrapper(Options())
        self.coupled = coupled or bool(aggregating)

    def per_pair(self, pairs: PairBatch) -> torch.Tensor:
        """``(B,)`` values of the pairs under the loss and every ``per_pair`` around it."""
        value = _checked(self.loss, type(self.loss).__call__, self.loss)
        for layer in self.layers:
            value = _checked(layer, type(layer).per_pair, _under(layer, value))
        with blamed((self.loss, *self.layers), f"failed on {len(pairs)} pairs"):
            return value(pairs)

    @property
    def stateful(self) -> bool:
        """Whether a method watches the pairs of every step."""
        watching = type(self.loss).observe is not PreferenceLoss.observe
        return watching or any(type(w).observe is not RobustWrapper.observe for w in self.wrappers)

    def value(self, pairs: PairBatch) -> torch.Tensor:
        """The scalar objective of a whole step's pairs."""
        losses = self.per_pair(pairs)
        with blamed((self.aggregator,), f"failed in objective() on {len(losses)} pairs"):
            value = self.aggregator.objective(losses)
        if fault := _fault(value, (), differentiable=losses.requires_grad):
            raise _wrong(self.aggregator, type(self.aggregator).objective, fault, "objective() returns a scalar, ()")
        return value

    def observe(self, pairs: PairBatch) -> None:
        """Let stateful methods see the step's pairs once, before its first evaluation."""
        pairs = pairs.detach()
        self.loss.observe(pairs)
        if self.wrappers:
            with torch.no_grad():
                losses = self.per_pair(pairs)
            for wrapper in self.wrappers:
                wrapper.observe(losses, pairs)

    def cotangents(self, pairs: PairBatch, *, of: int | None = None) -> tuple[torch.Tensor, PairBatch]:
        """The objective and its gradient with respect to the policy's fields.

        Args:
            pairs: the whole step's pairs; or, for an objective that is a plain mean over pairs, some of them.
            of: the number of pairs in the step when ``pairs`` are only some of them: the value and the gradient
                are then their share of the mean.

        Returns:
            the value ``()``, detached, and a ``PairBatch`` holding the cotangent of every differentiable field
            (zero where the objective does not read it).
        """
        leaves = {
            name: v.detach().requires_grad_(True) for name, v in pairs.present().items() if name in DIFFERENTIABLE
        }
        constants = {name: v.detach() for name, v in pairs.present().items() if name not in DIFFERENTIABLE}
        with torch.enable_grad():
            inputs = PairBatch(**leaves, **constants)
            value = self.value(inputs) if of is None else self.per_pair(inputs).sum() / of
            grads = torch.autograd.grad(value, list(leaves.values()), allow_unused=True)
        cotangents = {
            name: torch.zeros_like(leaf) if grad is None else grad
            for (name, leaf), grad in zip(leaves.items(), grads, strict=True)
        }
        return value.detach(), PairBatch(**cotangents, **constants)

    def weights(self, pairs: PairBatch) -> torch.Tensor:
        """How much each pair of a step counts, ``(N,)``, detached."""
        with torch.no_grad():
            losses = self.per_pair(pairs)
        with blamed((self.aggregator,), f"failed in weights() on {len(losses)} pairs"):
            weights = self.aggregator.weights(losses)
        if fault := _fault(weights, losses.shape):
            raise _wrong(self.aggregator, type(self.aggregator).weights, fault, "weights() returns one per pair, (N,)")
        return weights


def rewards_of(loss: PreferenceLoss, pairs: PairBatch) -> tuple[torch.Tensor, torch.Tensor]:
    """The loss's implicit rewards ``(chosen, rejected)``, each ``(B,)``.

    Raises:
        MethodError: it fails on them, or gives something else.
    """
    with blamed((loss,), f"failed in rewards() on {len(pairs)} pairs"):
        given = loss.rewards(pairs)
    shape = pairs.chosen_logps.shape
    if isinstance(given, tuple) and len(given) == 2:
        fault = _fault(given[0], shape) or _fault(given[1], shape)
    else:
        fault = _a(given)
    if fault:
        raise _wrong(loss, type(loss).rewards, fault, "rewards() returns two tensors, (B,) each")
    return given


@contextmanager
def blamed(methods: Sequence[Any], what: str) -> Iterator[None]:
    """Around methods' code: what goes wrong there names them, with the file and line; refusals of its own pass.

    Raises:
        MethodError: anything else came out, but for a lack of memory.
    """
    try:
        with contained():
            yield
    except (AlignzooError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # a stranger's mathematics: anything can come out of it
        names = " under ".join(type(method).__name__ for method in methods)
        place = place_in(error, {package_of(type(method).__module__) for method in methods})
        raise MethodError(
            f"{names} {what}: {describe_error(error)}{place}", hint="run again with --debug for the traceback"
        ) from error


def _checked(method: Any, function: Callable[..., Any], value: PerPair) -> PerPair:
    """``value`` with what it gives checked: a wrapper must not be the one that fails on what a loss has given."""

    def checked(pairs: PairBatch) -> torch.Tensor:
        values = value(pairs)
        inputs = (getattr(pairs, name) for name in DIFFERENTIABLE)
        differentiable = torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in inputs)
        if fault := _fault(values, pairs.chosen_logps.shape, differentiable=differentiable):
            what = "a loss" if isinstance(method, PreferenceLoss) else "per_pair()"
            due = f"{what} returns one value per pair, (B,), differentiable in the policy's log-probs"
            raise _wrong(method, function, f"{fault} for {len(pairs)} pairs", due)
        return values

    return checked


def _fault(value: Any, shape: Sequence[int], *, differentiable: bool = False) -> str | None:
    """What is wrong with a method's result, which should be a floating-point tensor of this shape."""
    if not isinstance(value, torch.Tensor):
        return _a(value)
    if tuple(value.shape) != tuple(shape):
        return f"shape {tuple(value.shape)}"
    if not value.is_floating_point():
        return f"dtype {str(value.dtype).removeprefix('torch.')}"
    if differentiable and not value.requires_grad:
        return "values without a gradient (by detach(), item() or no_grad())"
    return None


def _a(value: Any) -> str:
    return "None" if value is None else f"a {type(value).__name__}"


def _wrong(method: Any, function: Callable[..., Any], gave: str, due: str) -> MethodError:
    return MethodError(
        f"{type(method).__name__} gave {gave}; {due}{place_of(function)}",
        hint="`alignzoo check` runs the contract's tests on a method",
    )


def _under(layer: RobustWrapper | GeometryController, inner: PerPair) -> PerPair:
    return lambda pairs: layer.per_pair(inner, pairs)


def pull_back(pairs: PairBatch, cotangents: PairBatch) -> torch.Tensor:
    """The scalar whose gradient is the vector-Jacobian product: ``Σ fields · cotangents`` in the fields' dtype."""
    total = None
    for name in DIFFERENTIABLE:
        field, cotangent = getattr(pairs, name), getattr(cotangents, name)
        if field is not None and cotangent is not None:
            if field.dim() == 2:  # a micro-batch's T may be less than that of the whole step
                cotangent = cotangent[:, : field.shape[1]]
            term = (field * cotangent.to(field.dtype)).sum()
            total = term if total is None else total + term
    assert total is not None
    return total
