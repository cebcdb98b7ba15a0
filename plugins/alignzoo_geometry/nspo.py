"""Null-Space constrained Policy Optimization: MLP updates that leave outputs on general data unchanged.

    K = Σ h hᵀ,     P = V Vᵀ,     W ← W_ref + (W − W_ref) P     after every optimizer step

h are the inputs ``(d_in,)`` of an MLP map with weight W ``(d_out, d_in)`` at all tokens of general texts; the columns
of V are the eigenvectors of K with S ≤ α·S_max; W_ref are the initial weights. So (W − W_ref) h ≈ 0
for these texts. *Mitigating the Safety Alignment Tax with Null-Space Constrained Policy Optimization*, arXiv
2512.11391.

The weights are projected, not the gradient: Adam scales each element separately, which leaves the subspace. A bias is
the weight of an input that is always 1, and so is never free: it stays fixed in every constrained map. Padding is not
collected, unlike in the released code. If no direction is free, the update is zeroed with a warning. Under a new LoRA
adapter the update is s·B·A, and (B·A) P = B·(A P): A is projected. A previously trained adapter starts at B₀A₀ ≠ 0,
which projecting A alone cannot preserve; it is rejected, and so is DoRA.

Maps that ``projections`` does not name (attention, embeddings, the head) train freely. Logs ``nspo_kept``:
‖(W − W_ref) P‖ / ‖W − W_ref‖ over all named maps, before and after the projection.
"""

from __future__ import annotations

import hashlib
import json
import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pydantic import Field

from alignzoo.distributed.shards import beside, cut_like, like, local, whole
from alignzoo.errors import AlignzooError, IncompatibleError, UsageError
from alignzoo.geometry.perturb import norm
from alignzoo.interfaces import GeometryController
from alignzoo.lazy import torch
from alignzoo.plugin import GeometryCard, Options, Paper, Verified

if TYPE_CHECKING:
    from alignzoo.geometry.null_space import Directions
    from alignzoo.geometry.projections import Projection
    from alignzoo.interfaces import SetupContext, StepContext


class NSPOOptions(Options):
    """General data, the constrained maps, and how strict the constraint is."""

    alpha: float = Field(5e-5, gt=0, description="directions with eigenvalues up to α times the largest stay free")
    samples: int = Field(1024, ge=1, description="number of general texts to read", json_schema_extra={"search": []})
    data: str | None = Field(
        None,
        description="general texts: a file with text, messages, or prompt and response in each row, or a .txt file "
        "with one text per line (default: the run's training prompts with their chosen responses)",
        json_schema_extra={"path": True},
    )
    projections: str = Field(
        "mlp",
        description="maps to constrain: mlp (all MLP maps, in every model family), down_proj, or comma-separated names",
        examples=["down_proj", "mlp,o_proj", "*"],
    )
    max_length: int = Field(512, ge=1, description="tokens to read of each text", json_schema_extra={"search": []})


class NSPO(GeometryController):
    """Projects the weights' update after each step."""

    options: NSPOOptions

    def setup(self, run: SetupContext) -> None:
        """Read the general texts with the initial weights, and store these weights.

        Raises:
            DataError: the general data cannot be read, or contains no texts.
            IncompatibleError: a previously trained adapter.
            UsageError: the model lacks the maps, or they are not trained.
        """
        from alignzoo.geometry.null_space import free_directions, read_inputs
        from alignzoo.geometry.projections import find_projections

        options = self.options
        projections = [p for p in find_projections(run.model, options.projections) if _trains(p)]
        if not projections:
            raise UsageError(
                f"--geometry nspo: none of the maps {options.projections} is trained",
                hint="name others with --geometry.nspo.projections, or leave nspo out",
            )
        updates = {projection.name: _update_of(projection) for projection in projections}
        texts = [ids[: options.max_length] for ids in run.texts(options.data, options.samples)]
        if options.data is None:
            run.report.note(
                "nspo: using the run's own training texts; general data (--geometry.nspo.data) works better"
            )
        self._texts = hashlib.sha256(json.dumps(texts).encode()).hexdigest()
        with run.report.progress(len(texts), "collecting MLP inputs", unit="text") as bar:
            inputs = read_inputs(run.model, projections, texts, bar=bar)
        self.held: list[tuple[Directions, Sequence[Update]]] = []
        while inputs:
            shared = inputs.pop(0)  # frees its K, which is large
            weight = shared.readers[0].weight
            dtype = weight.dtype if weight.is_floating_point() else torch.float32  # a 4-bit base
            free = free_directions(shared.moment, options.alpha, dtype)
            self.held.append((free, [updates[reader.name] for reader in shared.readers]))
        self._tell(run)

    def _tell(self, run: SetupContext) -> None:
        """Report how many directions are left free."""
        sizes = [(len(free), free.size) for free, readers in self.held for _ in readers]
        free, all_of_them = (sum(column) for column in zip(*sizes, strict=True))
        shares = [100 * part / size for part, size in sizes]
        run.report.note(
            f"nspo: {free:,} of {all_of_them:,} directions free in {len(sizes)} maps; per map "
            f"{min(shares):.1f} %, {statistics.median(shares):.1f} %, {max(shares):.1f} % (min, median, max)"
        )
        stuck = sum(part == 0 for part, _ in sizes)
        if stuck:
            run.report.warn(
                f"nspo: no free direction in {stuck} of {len(sizes)} maps, which will not be updated; use fewer "
                "(--geometry.nspo.samples) or more similar texts (--geometry.nspo.data), or raise "
                "--geometry.nspo.alpha"
            )

    def after_step(self, ctx: StepContext) -> None:
        before = after = 0.0
        with torch.no_grad():
            for free, updates in self.held:
                for update in updates:
                    before += update.squared()
                    update.project(free)
                    after += update.squared()
        ctx.log("nspo_kept", (after / before) ** 0.5 if before > 0 else 1.0)

    def state_dict(self) -> dict[str, Any]:
        return {"texts": self._texts}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """:meth:`setup` recomputes the directions and W_ref from the same initial weights and texts.

        Raises:
            AlignzooError: the texts have changed.
        """
        if state["texts"] != self._texts:
            raise AlignzooError(
                "the general data of nspo has changed since this run started",
                hint="restore it, or start a new run with another --out",
            )


class WeightUpdate:
    """W − W_ref of a map whose weight is trained directly; W_ref is stored in fp32 or wider."""

    def __init__(self, projection: Projection) -> None:
        self._map = projection
        weight, bias = projection.weight.detach(), projection.bias
        self._kept = weight.to(torch.promote_types(weight.dtype, torch.float32), copy=True)
        self._bias = None if bias is None or not bias.requires_grad else bias.detach().clone()

    def squared(self) -> float:
        """‖W − W_ref‖²."""
        return norm([self._moved()]) ** 2

    def project(self, free: Directions) -> None:
        """W ← W_ref + (W − W_ref) P, in place; exactly W if all directions are free, W_ref if none is.

        Unless all are free, the bias is reset.
        """
        if len(free) < free.size:
            moved = self._moved()
            if self._map.rows_are_neurons:  # when sharded, a rank holds only some of the neurons
                kept = cut_like(free.project(whole(moved)), moved)
            else:
                kept = like(free.project(local(moved).T).T, moved)
            self._map.weight.copy_(self._start + kept)
            if self._bias is not None:
                [self._bias] = beside([self._bias], [self._map.bias])
                self._map.bias.copy_(self._bias)

    @property
    def _start(self) -> torch.Tensor:
        """W_ref, sharded like the weight."""
        [self._kept] = beside([self._kept], [self._map.weight])
        return self._kept

    def _moved(self) -> torch.Tensor:
        start = self._start
        return self._map.weight.detach().to(start.dtype) - start


class AdapterUpdate:
    """B·A of a map under a new LoRA adapter, which starts at 0; the scale s is left out."""

    def __init__(self, projection: Projection) -> None:
        self._map = projection
        if getattr(projection.module, "use_dora", {}).get("default"):
            raise IncompatibleError(
                "nspo cannot constrain a DoRA adapter: its update is not a product of B and A",
                hint="train a plain LoRA adapter, or leave nspo out",
            )
        if bool(whole(self._of("lora_B")).any()):
            raise IncompatibleError(
                "nspo cannot constrain a previously trained adapter: its update is B·A − B₀·A₀, and only A can be "
                "projected",
                hint="merge the adapter into its base and train a new one, or leave nspo out",
            )

    def squared(self) -> float:
        """‖B·A‖², from two small products."""
        a, b = whole(self._of("lora_A")), whole(self._of("lora_B"))
        return float(((b.T @ b) * (a @ a.T)).sum())

    def project(self, free: Directions) -> None:
        """A ← A P, in place."""
        a = self._of("lora_A")
        a.copy_(like(free.project(local(a).T).T, a))

    def _of(self, part: str) -> torch.nn.Parameter:
        weight: torch.nn.Parameter = getattr(self._map.module, part)["default"].weight
        return weight


Update = WeightUpdate | AdapterUpdate


def _update_of(projection: Projection) -> Update:
    return AdapterUpdate(projection) if hasattr(projection.module, "lora_A") else WeightUpdate(projection)


def _trains(projection: Projection) -> bool:
    return any(weight.requires_grad for weight in projection.module.parameters())


CARD = GeometryCard(
    api=1,
    name="nspo",
    target=f"{__name__}:NSPO",
    options=NSPOOptions,
    summary="NSPO: MLP updates in the null space of general data",
    family="geometry of alignment",
    addresses=frozenset({"forgetting", "safety"}),
    formula="K = Σ h hᵀ; P = V Vᵀ over S ≤ α·S_max; W ← W_ref + (W − W_ref)·P",
    paper=Paper(
        title="Mitigating the Safety Alignment Tax with Null-Space Constrained Policy Optimization",
        arxiv="2512.11391",
        authors=("Niu, Yifan", "Xiao, Han", "Liu, Dongyi", "Chen, Nuo", "Li, Jia"),
        venue="ICLR 2026",
    ),
    companion=True,
    sharded=True,
    verified=(
        Verified(
            against="the authors' ivanniu/NSPO@b891fdc",
            test="test_weights_after_nspos_projection_equal_the_authors",
        ),
        Verified(against="closed form: inputs of known rank", test="test_outputs_on_the_general_data_stay"),
        Verified(against="K by hand, text by text", test="test_moments_are_those_of_one_text_at_a_time"),
    ),
)
