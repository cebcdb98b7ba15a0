"""Label noise of unreliable annotators: only the rows of some groups are flipped.

    y_w ↔ y_l  for round(rate·N_g) rows of every unreliable group g, drawn uniformly;   none of any other group

The data's column ``group`` says who labelled a row, or what else noise depends on: an annotator, a source, a harm
category. The unreliable groups are named, or a share of all groups is drawn by the run's seed. With every group
unreliable this is uniform noise, stratified by group.
"""

from __future__ import annotations

from pydantic import Field, model_validator

from alignzoo.interfaces import Selection, SelectionContext, Selector
from alignzoo.lazy import np
from alignzoo.plugin import SelectorCard, Verified
from alignzoo_selectors import groups
from alignzoo_selectors.noise import FLIPPABLE, RateOptions, uniforms

NAME = "group-flips"


class GroupFlipsOptions(RateOptions):
    """How many rows of which groups."""

    groups: str | None = Field(
        None, description="comma-separated names of the unreliable groups [default: drawn]", examples=["g0", "g1,g2"]
    )
    share: float = Field(
        0.5, gt=0, le=1, description="share of the groups to draw as unreliable, at least one", examples=[1.0]
    )

    @model_validator(mode="after")
    def _named_or_drawn(self) -> GroupFlipsOptions:
        if self.groups is not None:
            if not groups.listed(self.groups):
                raise ValueError("groups: name at least one group")
            if "share" in self.model_fields_set:
                raise ValueError("share says how many groups to draw; with groups named, leave it out")
        return self


class GroupFlips(Selector):
    """Flips rows of unreliable groups."""

    options: GroupFlipsOptions

    def select(self, ctx: SelectionContext) -> Selection:
        assert ctx.groups is not None
        if self.options.groups is None:
            unreliable = groups.drawn(NAME, ctx.seed, ctx.groups, self.options.share)
        else:
            asked = groups.listed(self.options.groups)
            unreliable = groups.named(asked, ctx.groups, f"--selector.{NAME}.groups")
        draws, of_row = uniforms(NAME, ctx.seed, ctx.row_ids.tolist()), np.array(ctx.groups, object)
        flipped = list[int]()
        for group in unreliable:
            rows = np.flatnonzero(of_row == group)
            order = rows[np.argsort(draws[rows], kind="stable")]
            flipped += order[: round(self.options.rate * len(rows))].tolist()
        notes = {row: f"group {ctx.groups[row]}" for row in flipped}
        facts = {"groups": float(len(set(ctx.groups))), "unreliable": float(len(unreliable))}
        return Selection(flipped=sorted(flipped), notes=notes, facts=facts)


CARD = SelectorCard(
    name=NAME,
    target=f"{__name__}:GroupFlips",
    options=GroupFlipsOptions,
    summary="Flips the labels of some annotators or groups",
    family="noise",
    formula="y_w ↔ y_l for round(rate·N_g) rows of each unreliable group g",
    shapes=FLIPPABLE,
    needs=frozenset({"groups"}),
    verified=(Verified(against="the stated counts", test="test_group_flips_stay_within_the_unreliable_groups"),),
)
