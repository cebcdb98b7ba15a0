"""The safety probe as a reward: how safe a response is according to the policy's own hidden states.

    s(x, y) = −(w_unsafe − w_safe)·h(x, y) − (b_unsafe − b_safe)

h are the hidden states of the initial policy, pooled over prompt and response with the probe's own layer and pooling;
w and b are the probe's, so s is the log-odds of *safe*. It is the default if a method needs ``reward``, even if the
data has scores: ``--reward column`` uses those.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic import Field

from alignzoo.interfaces import Reward
from alignzoo.lazy import torch
from alignzoo.plugin import Need, Options, RewardCard, Verified

if TYPE_CHECKING:
    from alignzoo.interfaces import Response, RewardContext


class ProbeOptions(Options):
    """The probe."""

    probe: str | None = Field(
        None,
        description="folder of a trained probe (default: trained on part of the data)",
        json_schema_extra={"path": True},
    )

    def needs(self) -> frozenset[Need]:
        return frozenset({"probe"}) if self.probe is None else frozenset()


class ProbeReward(Reward):
    """Log-odds of *safe* under the probe."""

    options: ProbeOptions

    def setup(self, run: RewardContext) -> None:
        """Train or load the probe, with the initial weights.

        Raises:
            AlignzooError: the folder has no probe for this model, or there is no data to train one.
        """
        self.run = run
        if run.data_scores:
            run.report.note("the data has scores; --reward column uses them")
        self.probe = run.probe(self.options.probe)

    def identity(self) -> str:
        """A trained probe is identified by its training data: retraining may change its last digits."""
        from alignzoo.data.digests import digest
        from alignzoo.model.weights import config_digest

        policy = [self.run.weights, config_digest(self.run.model)]
        how = [self.probe.facts.get(name) for name in ("layer", "pooling")]
        if self.options.probe is None:
            return digest(policy, how, [self.probe.facts.get(name) for name in ("model_weights", "data")])
        return digest(policy, how, self.probe.weight.tolist(), self.probe.bias.tolist())

    def scores(self, responses: Sequence[Response]) -> Sequence[float]:
        from alignzoo.model.base import without_adapter
        from alignzoo.probe.probe import hidden_features
        from alignzoo.report import Progress

        model = without_adapter(self.run.model)
        layer = self.probe.facts.get("layer", model.config.get_text_config().num_hidden_layers)
        pooling = self.probe.facts.get("pooling", "mean")
        training, sequences = model.training, [response.ids for response in responses]
        model.eval()
        try:
            [features] = hidden_features(model, sequences, layers=[layer], pooling=pooling, bar=Progress())
        finally:
            model.train(training)
        bias = self.probe.bias.double()
        unsafe: torch.Tensor = features.double() @ self.probe.direction.double() + bias[1] - bias[0]
        return (-unsafe).tolist()


CARD = RewardCard(
    name="probe",
    target=f"{__name__}:ProbeReward",
    options=ProbeOptions,
    summary="Safety probe: log-odds of safe, from the policy's hidden states",
    family="from models",
    formula="s = −(w_unsafe − w_safe)·h(x, y) − (b_unsafe − b_safe)",
    verified=(Verified(against="the probe's two logits", test="test_the_probe_scores_by_its_own_logits"),),
)
