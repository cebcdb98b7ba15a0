"""The scores of a plan's reward, the safety probe, and the identities of what a run is made from."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

from alignzoo.contract.scoring import RewardContext
from alignzoo.data.parts import Parts
from alignzoo.probe.probe import Probe
from alignzoo.probe.source import probe_source
from alignzoo.reward.scoring import scored
from alignzoo.session.inputs import Inputs


class Scores(Inputs):
    """:class:`Inputs` with what scores the data's responses."""

    @cached_property
    def probe(self) -> Callable[[str | None], Probe]:
        """The source of the safety probe: loaded from a given folder, or trained on the data set aside for it."""
        return probe_source(self.policy, self.parts, self.weights, self.accelerator, self.folder, self.report)

    @cached_property
    def _scored(self) -> tuple[Parts, str | None]:
        """The parts with the scores of the plan's reward, and that reward's identity."""
        if not self.plan.of("reward"):
            return self.parts, None
        context = RewardContext(
            self.policy,
            self.weights,
            self.accelerator.device,
            self.settings.seed,
            self.report,
            self.probe,
            self.settings.trust_remote_code,
        )
        return scored(self.plan.one("reward"), self.parts, context, self.accelerator, which=self.uses)

    @property
    def scores(self) -> dict[str, Any]:
        """The reward's scores by part; empty if no method reads any."""
        return self._scored[0].scores

    @property
    def identities(self) -> dict[str, str]:
        """Hashes of training's inputs: weights, data and, if there are such, the reward and the guide models."""
        known = {"weights": self.weights, "data": self.parts.fingerprint}
        if "_scored" in vars(self) and self._scored[1] is not None:
            known["scores"] = self._scored[1]
        guides = vars(self).get("guides")  # as with scores: what has not been asked for is not made here
        return known if guides is None else known | guides.identities
