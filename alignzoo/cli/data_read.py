"""The data that a plan's losses can read, for commands that do not open the data."""

from __future__ import annotations

from alignzoo.contract.loss import READS, LossCard
from alignzoo.data.shapes import NOUNS, SHAPES, readable
from alignzoo.plan.plan import Plan


def data_read(plan: Plan) -> list[str]:
    """One line per loss: what it reads, and the data shapes that provide it."""
    lines = []
    for method in plan.of("loss"):
        card = method.card
        assert isinstance(card, LossCard)
        shapes = [NOUNS[shape] for shape in SHAPES if readable(card.reads, method.needs, shape) is None]
        data = "any data" if len(shapes) == len(SHAPES) else f"data of {' or '.join(shapes)}"
        lines.append(f"loss {card.name} reads {READS[card.reads]}: {data}")
    return lines
