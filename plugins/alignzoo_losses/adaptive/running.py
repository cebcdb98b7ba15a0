"""Running mean and standard deviation of the step's margins."""

from __future__ import annotations

from typing import Any

from alignzoo.lazy import torch

DECAY = 0.9
LEAST_STD = 1e-4
"""In the unit of the values; at the first step, where policy and reference agree, all there is is rounding."""


class RunningMoments:
    """Exponential moving averages, with decay 0.9, of a step's mean and standard deviation, each divided by the sum of
    the weights so far. They start at 0, so without the division the first ones are a tenth of what they estimate."""

    def __init__(self) -> None:
        self.steps = self._spreads = 0
        self._mean: Any = 0.0
        self._std: Any = 0.0

    @property
    def mean(self) -> Any:
        """``()``, or 0.0 before the first step."""
        return self._mean / (1 - DECAY**self.steps) if self.steps else 0.0

    @property
    def std(self) -> Any:
        """``()``, or 0.0 before the first step of two values or more."""
        return self._std / (1 - DECAY**self._spreads) if self._spreads else 0.0

    def update(self, values: torch.Tensor) -> None:
        """Take the values ``(B,)`` of a step; a single one has no standard deviation, and leaves it as it is."""
        self.steps += 1
        self._mean = DECAY * self._mean + (1 - DECAY) * values.mean()
        if len(values) > 1:
            self._spreads += 1
            self._std = DECAY * self._std + (1 - DECAY) * values.std()

    def standardised(self, values: torch.Tensor) -> torch.Tensor:
        """``(B,)``: (values − mean)/std; 0 before the first standard deviation."""
        if not self._spreads:
            return torch.zeros_like(values)
        # A held-out batch is evaluated on the host, wherever the steps were.
        return (values - self.mean.to(values)) / self.std.to(values).clamp(min=LEAST_STD)

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self.steps, "spreads": self._spreads, "mean": self._mean, "std": self._std}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.steps, self._spreads = state["steps"], state["spreads"]
        self._mean, self._std = state["mean"], state["std"]
