"""SafeDPO's transformation of preference data: a chosen response is safe.

    (x, y_w, y_l)  if y_w is safe;    (x, y_l, y_w)  if y_w is unsafe and y_l is safe;    nothing if both are unsafe

Kim et al., "SafeDPO: A Simple Approach to Direct Preference Optimization with Enhanced Safety". The loss of that paper,
`--loss safedpo`, reads the safety labels after this step; other losses can use the transformed pairs as well.
"""

from __future__ import annotations

from alignzoo.interfaces import Selection, SelectionContext, Selector
from alignzoo.plugin import Paper, SelectorCard, Verified

BOTH_UNSAFE = "both unsafe"


class SafeDPO(Selector):
    """Swaps and drops pairs by their safety labels."""

    def select(self, ctx: SelectionContext) -> Selection:
        assert ctx.safe is not None
        kept, swapped, dropped = list[int](), list[int](), list[int]()
        for row, (chosen, rejected) in enumerate(ctx.safe):
            if not (chosen or rejected):
                dropped.append(row)
                continue
            kept.append(row)
            if not chosen:
                swapped.append(row)
        return Selection(kept, swapped, reasons=dict.fromkeys(dropped, BOTH_UNSAFE))


CARD = SelectorCard(
    name="safedpo",
    target=f"{__name__}:SafeDPO",
    summary="Swaps or drops pairs whose chosen response is unsafe",
    family="labels",
    formula="swap if y_w unsafe and y_l safe; drop if both unsafe",
    paper=Paper(
        title="SafeDPO: A Simple Approach to Direct Preference Optimization with Enhanced Safety",
        arxiv="2505.20065",
        authors=("Kim, Geon-Hyeong", "others"),
        venue="ICLR 2026",
    ),
    shapes=frozenset({"pairs"}),
    needs=frozenset({"safety"}),
    addresses=frozenset({"safety"}),
    verified=(
        Verified(against="the paper's table of four cases", test="test_safedpo_swaps_drops_and_keeps_as_published"),
    ),
)
