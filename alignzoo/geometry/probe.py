"""The public name of :class:`~alignzoo.probe.probe.Probe` for controllers."""

from alignzoo.probe.probe import Probe

__all__ = ["Probe"]
