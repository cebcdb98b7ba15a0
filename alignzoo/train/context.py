"""The public name of :class:`~alignzoo.step.context.StepContext` and :class:`~alignzoo.step.context.SetupContext`."""

from alignzoo.step.context import SetupContext, StepContext

__all__ = ["SetupContext", "StepContext"]
