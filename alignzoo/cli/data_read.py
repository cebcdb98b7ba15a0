"""What data the losses of a plan can read, for commands that do not look at the data itself."""

from __future__ import annotations

from alignzoo.contract.loss import READS, LossCard
from alignzoo.data.shapes import NOUNS, SHAPES, readable
from alignzoo.plan.plan import Plan


def data_read(plan: Plan) -> list[str]:
    """One line per loss: what it gives a value for, and the data that has it."""
    lines = []
    for method in plan.of("loss"):
        card = method.card
        assert isinstance(card, LossCard)
        shapes = [NOUNS[shape] for shape in SHAPES if readable(card.reads, method.needs, shape) is None]
        lines.append(f"loss {card.name} reads {READS[card.reads]}: data of {' or '.join(shapes)}")
    return lines
