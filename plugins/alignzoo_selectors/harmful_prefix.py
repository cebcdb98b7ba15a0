"""Refusals that start after some tokens of a harmful answer.

    x → x ⊕ y_l[:k] with probability p,  k ~ U{1, …, min(most, |y_l| − 1)};   otherwise x

The model learns to recover after an answer has begun badly, as it does under prefilling attacks. Qi et al., "Safety
Alignment Should Be Made More Than Just a Few Tokens Deep" (p = 0.5, up to 100 tokens); DOOR (Zhao et al., 2025)
augments its data the same way.

Both papers append the prefix for the response to imitate only. Here a row has one prompt, so the rejected response
continues after the prefix as well: it is the rest of the harmful answer, y_l[k:]. Losses that read the chosen response
alone see exactly the papers' rows.
"""

from __future__ import annotations

from pydantic import Field

from alignzoo.interfaces import Selection, SelectionContext, Selector
from alignzoo.lazy import np
from alignzoo.plugin import Options, Paper, SelectorCard, Verified


class HarmfulPrefixOptions(Options):
    """How often, and how many tokens."""

    p: float = Field(0.5, ge=0, le=1, description="probability that a row gets a prefix")
    most: int = Field(100, ge=1, description="largest number of tokens of the prefix", examples=[1, 2])


class HarmfulPrefix(Selector):
    """Moves the first tokens of rejected responses to the prompts of some rows."""

    options: HarmfulPrefixOptions

    def select(self, ctx: SelectionContext) -> Selection:
        prefixes: dict[int, int] = {}
        for row, (number, responses) in enumerate(zip(ctx.row_ids.tolist(), ctx.response_ids(), strict=True)):
            # By row number: the prefix of a row does not depend on which other rows there are.
            draw = np.random.default_rng([abs(ctx.seed), int(ctx.seed < 0), number])
            chance, share = draw.random(2)
            most = min(self.options.most, len(responses[-1]) - 1)
            if chance < self.options.p and most > 0:
                prefixes[row] = 1 + int(share * most)
        return Selection(prefixes=prefixes)


CARD = SelectorCard(
    name="harmful-prefix",
    target=f"{__name__}:HarmfulPrefix",
    options=HarmfulPrefixOptions,
    summary="Starts some answers with tokens of the rejected response",
    family="prompts",
    formula="x → x ⊕ y_l[:k] with probability p, k ~ U{1…most}",
    paper=Paper(
        title="Safety Alignment Should Be Made More Than Just a Few Tokens Deep",
        arxiv="2406.05946",
        authors=("Qi, Xiangyu", "others"),
        venue="ICLR 2025",
    ),
    shapes=frozenset({"pairs"}),
    addresses=frozenset({"safety"}),
    verified=(Verified(against="the definition", test="test_harmful_prefixes_are_the_rejected_responses_own_tokens"),),
)
