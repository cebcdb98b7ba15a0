"""From a plan, a model's shapes, hardware and row lengths to the memory, work and time of a step."""

from __future__ import annotations

from dataclasses import dataclass

from alignzoo_estimate.communication import Traffic, seconds, traffic
from alignzoo_estimate.compute import Work, work
from alignzoo_estimate.hardware import Hardware, Sharding
from alignzoo_estimate.host import Host, host
from alignzoo_estimate.memory import GIB, Moment, moments, saved_activations
from alignzoo_estimate.model import Model
from alignzoo_estimate.situation import Situation


@dataclass(frozen=True)
class Estimate:
    """The memory, work and time of a step on each device.

    Attributes:
        host: of each node; None on a CPU.
    """

    situation: Situation
    moments: tuple[Moment, ...]
    work: Work
    traffic: Traffic
    host: Host | None

    @property
    def peak(self) -> Moment:
        """The moment with the highest memory."""
        return max(self.moments, key=lambda moment: moment.total)

    @property
    def fits(self) -> bool | None:
        """Whether the run fits; None if the memory is unknown."""
        memory = self.situation.hardware.memory
        return None if memory is None else self.peak.total <= memory

    @property
    def computing(self) -> float | None:
        """Seconds of a step's work; None if the rate is unknown."""
        hardware = self.situation.hardware
        return self.work.total / (hardware.rate * hardware.utilisation) if hardware.rate else None

    @property
    def communicating(self) -> float | None:
        """Seconds of a step's traffic; None if a link's rate is unknown."""
        return seconds(self.traffic, self.situation.hardware)

    @property
    def seconds(self) -> float | None:
        """Seconds per step if work and traffic never overlap, without the traffic where its time is unknown; None if
        the rate is unknown."""
        return None if self.computing is None else self.computing + (self.communicating or 0.0)

    @property
    def overlapped(self) -> float | None:
        """Seconds per step if all traffic that can is hidden behind the work."""
        return None if self.computing is None else max(self.computing, self.communicating or 0.0)


def estimate(situation: Situation) -> Estimate:
    """The memory, the work and the traffic of a step."""
    heaviest = situation.data.micro_batch(situation.rows_per_micro_batch, packed=situation.packed)
    held = situation.model.held(situation.way, heaviest)
    ahead = situation.model.frozen(situation.way, situation.ahead) if situation.ahead else 0.0
    return Estimate(
        situation,
        tuple(moments(situation, held, ahead)),
        work(situation),
        traffic(situation, saved_activations(situation, held)),
        host(situation, held),
    )


__all__ = ["GIB", "Estimate", "Hardware", "Model", "Sharding", "Situation", "estimate"]
