"""Loss and wrappers as one differentiable function of a step's ``PairBatch``.

The model enters the objective only through a few numbers per pair. So the gradient of the whole step's objective with
respect to those numbers (the *cotangent*) is exact whatever couples the pairs, and pushing it back through the
micro-batches one by one gives the gradient of the weights, however the step was cut.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from alignzoo.errors import AlignzooError, MethodError, contained
from alignzoo.interfaces import GeometryController, PerPair, PreferenceLoss, RobustWrapper
from alignzoo.pairs import DIFFERENTIABLE, PairBatch
from alignzoo.plugin.card import Options
from alignzoo.plugin.faults import describe_error


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
        value: PerPair = self.loss
        for layer in self.layers:
            value = _under(layer, value)
        try:
            with contained():
                losses = value(pairs)
        except AlignzooError:
            raise
        except Exception as error:  # a stranger's mathematics: anything can come out of it
            raise MethodError(
                f"{self._names()} failed on {len(pairs)} pairs: {describe_error(error)}",
                hint="run again with --debug for the traceback",
            ) from error
        if losses.shape != pairs.chosen_logps.shape:
            raise MethodError(
                f"{self._names()} gave shape {tuple(losses.shape)} for {len(pairs)} pairs; "
                "a loss returns one value per pair, (B,)"
            )
        return losses

    @property
    def stateful(self) -> bool:
        """Whether a method watches the pairs of every step."""
        watching = type(self.loss).observe is not PreferenceLoss.observe
        return watching or any(type(w).observe is not RobustWrapper.observe for w in self.wrappers)

    def _names(self) -> str:
        return " under ".join(type(method).__name__ for method in (self.loss, *self.layers))

    def value(self, pairs: PairBatch) -> torch.Tensor:
        """The scalar objective of a whole step's pairs."""
        return self.aggregator.objective(self.per_pair(pairs))

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
        return self.aggregator.weights(losses)


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
