"""A model without weights: its shapes, and the memory of its micro-batches."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import torch

from alignzoo.errors import ModelError
from alignzoo.logprobs import attention
from alignzoo.logprobs.attention import NAME, CannotPack
from alignzoo_estimate.micro_batch import Bytes, Lengths, Way
from alignzoo_estimate.shapes import Shapes, empty_model, shapes_of
from alignzoo_estimate.simulate import Simulator


class Model:
    """A model without weights: its shapes, and micro-batches simulated on them."""

    def __init__(self, config: Any) -> None:
        attention.register()
        self.config = config
        model = empty_model(config)
        self.shapes: Shapes = shapes_of(model)
        self._simulators: dict[bool, Simulator] = {}
        self.packable = _packable(model) and self._runs(packed=True)
        if not self.packable and not self._runs(packed=False):
            raise ModelError(
                f"{config.model_type} models cannot be estimated: their forward pass depends on more than shapes",
                hint="start a short run and watch its memory",
            )

    def _runs(self, *, packed: bool) -> bool:
        """Whether a micro-batch can be simulated this way, tried on a tiny one."""
        log = logging.getLogger("torch._subclasses.fake_tensor")
        before, log.disabled = log.disabled, True  # it prints errors that are caught here
        try:
            self.held(Way(False, 0, False, packed), [Lengths(3, (2, 2))] * 2)
        except (CannotPack, RuntimeError, TypeError, ValueError, IndexError, AttributeError, NotImplementedError):
            return False
        finally:
            log.disabled = before
        return True

    @property
    def stored(self) -> float:
        """Bytes of the weights on disk, in the config's dtype (fp32 if it has none)."""
        dtype = getattr(self.config, "dtype", None)
        return float(self.shapes.total * (dtype.itemsize if isinstance(dtype, torch.dtype) else 4))

    def held(self, way: Way, rows: Sequence[Lengths]) -> Bytes:
        """The memory of a micro-batch of these rows."""
        return self._simulator(way).run(way, rows)

    def frozen(self, way: Way, rows: Sequence[Lengths]) -> float:
        """Bytes of a forward pass of these rows without gradients."""
        return self._simulator(way).run_frozen(way, rows)

    def _simulator(self, way: Way) -> Simulator:
        if way.packed not in self._simulators:
            model = empty_model(self.config, **({"attn_implementation": NAME} if way.packed else {}))
            self._simulators[way.packed] = Simulator(model)
        return self._simulators[way.packed]


def _packable(model: Any) -> bool:
    """Whether a run would try packing with such a model."""
    from alignzoo.logprobs.forward import why_not_packed

    return model.config._attn_implementation == "sdpa" and why_not_packed(model) is None
