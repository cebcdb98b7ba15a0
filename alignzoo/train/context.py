"""The public name of :class:`~alignzoo.step.context.StepContext` and :class:`~alignzoo.step.setup.SetupContext`."""

from alignzoo.step.context import StepContext
from alignzoo.step.setup import SetupContext

__all__ = ["SetupContext", "StepContext"]
