"""A shift of domain: some groups of the data are not trained on, and evaluated apart.

    train on {i : g_i ∉ out};   eval/in/… on held-out rows with g_i ∉ out,   eval/out/… on those with g_i ∈ out

The data's column ``group`` is the domain: a harm category, a source, a language. The domains left out are named, or a
share of them is drawn; the draw has a number of its own and does not depend on the run's seed, so that runs over
several seeds have the same split. Held-out rows stay as they are: ``eval/…`` is over all of them, as without the
selector.
"""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field, model_validator

from alignzoo.errors import DataError
from alignzoo.interfaces import Selection, SelectionContext, Selector
from alignzoo.plugin import Options, SelectorCard, Verified
from alignzoo_selectors import groups

NAME = "domains"


class DomainsOptions(Options):
    """Which domains are left out of training."""

    out: str | None = Field(
        None, description="comma-separated groups to leave out of training [default: drawn]", examples=["g0", "g1,g2"]
    )
    share: float = Field(0.25, gt=0, lt=1, description="share of the groups to draw, at least one", examples=[0.5, 0.7])
    draw: int = Field(0, ge=0, description="number of the draw: another one leaves out other groups")

    @model_validator(mode="after")
    def _named_or_drawn(self) -> DomainsOptions:
        if self.out is not None:
            if not groups.listed(self.out):
                raise ValueError("out: name at least one group")
            unused = sorted({"share", "draw"} & self.model_fields_set)
            if unused:
                raise ValueError(f"{unused[0]} is for drawing groups; with out named, leave it out")
        return self


class Domains(Selector):
    """Drops the rows of some groups."""

    options: DomainsOptions

    def select(self, ctx: SelectionContext) -> Selection:
        assert ctx.groups is not None
        out, known = self._out(ctx.groups), set(ctx.groups)
        kept = [row for row, group in enumerate(ctx.groups) if group not in out]
        reasons = {row: f"domain {group}" for row, group in enumerate(ctx.groups) if group in out}
        facts = {"domains": float(len(known)), "left_out": float(len(out))}
        return Selection(kept, reasons=reasons, facts=facts, left_out=out)

    def _out(self, of_rows: Sequence[str]) -> frozenset[str]:
        """The groups to leave out.

        Raises:
            DataError: one that is named does not exist, or the data has a single group.
        """
        known = set(of_rows)
        if self.options.out is not None:
            return groups.named(groups.listed(self.options.out), of_rows, f"--selector.{NAME}.out")
        if len(known) < 2:
            raise DataError(
                f"selector {NAME} needs two groups or more, and all training rows have the group {next(iter(known))!r}",
                hint="leave the selector out, or use data whose column `group` names several domains",
            )
        share = min(max(round(self.options.share * len(known)), 1), len(known) - 1) / len(known)
        return groups.drawn(NAME, self.options.draw, of_rows, share)


CARD = SelectorCard(
    name=NAME,
    target=f"{__name__}:Domains",
    options=DomainsOptions,
    summary="Leaves some groups out of training and evaluates them apart",
    family="shift",
    formula="train on {i : g_i ∉ out}; eval/in/… and eval/out/… on held-out rows",
    needs=frozenset({"groups"}),
    addresses=frozenset({"distribution-shift"}),
    verified=(
        Verified(against="the stated split", test="test_domains_trains_on_no_row_of_the_groups_left_out"),
        Verified(against="runs", test="test_rows_of_domains_left_out_are_evaluated_apart"),
    ),
)
