"""TR-DPO: the reference follows the policy, beside any controller.

    π_ref ← α·π + (1 − α)·π_ref    in weight space, after each ``interval`` steps

Gorbatovski et al., *Learn Your Reference Model for Real Good Alignment*, arXiv 2404.09656: the soft update has α = 0.6,
the hard one α = 1, and TRL's ``sync_ref_model`` takes 0.6 every 512 steps. After a hard update every log-ratio is 0,
so DPO's loss jumps to log 2. α = 0 leaves the run as it is without.

The reference is a full copy of the model in fp32, computed in every step; its weights are part of the checkpoint. Under
a LoRA adapter the product BA that the policy computes with is mixed in, not A and B one by one. The copy of an adapter
is its base with the adapter merged, which rounds otherwise than the two apart.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field

from alignzoo.contract.geometry import GeometryController
from alignzoo.errors import UsageError
from alignzoo.plugin import GeometryCard, Options, Paper, Verified

if TYPE_CHECKING:
    from alignzoo.contract.step import SetupContext, StepContext


class TROptions(Options):
    """Share and schedule of the updates; steps are optimizer steps."""

    alpha: float = Field(0.6, ge=0, le=1, description="α: share of the policy in an update; 1 replaces the reference")
    interval: int = Field(512, ge=1, description="optimizer steps between updates of the reference")


class TRDPO(GeometryController):
    """A companion that moves the reference."""

    options: TROptions

    def setup(self, run: SetupContext) -> None:
        """Take hold of the reference.

        Raises:
            UsageError: the run is too short for an update that any step would see.
        """
        if run.steps is not None and self.options.interval >= run.steps:
            raise UsageError(
                f"--geometry tr-dpo would never move the reference: it does after {self.options.interval} steps, and "
                f"the run has only {run.steps}",
                hint="lower --geometry.tr-dpo.interval",
            )
        self._reference = run.moving_reference()

    def after_step(self, ctx: StepContext) -> None:
        if (ctx.step + 1) % self.options.interval == 0:
            self._reference.mix(self.options.alpha)
            ctx.log("reference_distance", self._reference.distance())

    def state_dict(self) -> dict[str, Any]:
        return {"reference": self._reference.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._reference.load_state_dict(state["reference"])


CARD = GeometryCard(
    name="tr-dpo",
    target=f"{__name__}:TRDPO",
    options=TROptions,
    summary="TR-DPO: the reference moves toward the policy every few hundred steps",
    family="moving references",
    formula="π_ref ← α·π + (1 − α)·π_ref",
    paper=Paper(
        title="Learn Your Reference Model for Real Good Alignment",
        arxiv="2404.09656",
        authors=("Gorbatovski, Alexey", "others"),
    ),
    companion=True,
    moves_reference=True,
    addresses=frozenset({"overoptimisation"}),
    api=2,
    verified=(
        Verified(against="closed form: weights mixed by hand", test="test_the_reference_is_the_mixture"),
        Verified(against="limit α = 0: the run without it", test="test_with_alpha_0_a_run_is_the_plain_one"),
        Verified(against="closed form: log 2 after a hard update", test="test_after_a_hard_update_the_loss_is_log_2"),
    ),
)
