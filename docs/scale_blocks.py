"""The table of geometry controllers on large models in docs/geometry.md: from cards and from what the resolver says."""

from __future__ import annotations

from reference_blocks import table

from alignzoo.contract.card import Card, Composition
from alignzoo.contract.geometry import GeometryCard
from alignzoo.plan.plan import Plan
from alignzoo.plan.recipe import Layer
from alignzoo.plan.resolve import resolve
from alignzoo.plugin.registry import registry

LAUNCHES = {"DDP": "ddp", "FSDP2": "fsdp", "DeepSpeed": "deepspeed"}
"""Columns of the table, and what the resolver calls these launches."""
LORA = {
    "shapo-token": "exact, on the frozen base",
    "nspo": "exact, projects A",
    "tr-dpo": "exact, merges the adapter",
}
"""What a controller works on where that is not the adapter's weights."""
REFUSED = "refused"
FOUR_BITS = ("plain", "sam", "shapo-token")
"""Controllers whose steps over an NF4 base are tested, in ``tests/geometry/test_four_bits.py``."""
_LOSS = {"gapo": "simpo"}


def controllers() -> list[GeometryCard]:
    """The cards of the controllers that ship with alignzoo, without compositions, in the order of the listing."""
    found = [method for _, method in registry().entries() if isinstance(method, GeometryCard)]
    return sorted(found, key=lambda card: (card.companion, card.name))


def resolved(card: Card | Composition, *, launch: str = "none", **settings: object) -> Plan | list:  # type: ignore[type-arg]
    """What the resolver says of a run with the controller."""
    values = {"geometry": card.name, "loss": _LOSS.get(card.name, "dpo"), **settings}
    return resolve([Layer("flag", values)], distributed=launch)


def cells(card: GeometryCard) -> dict[str, str]:
    """The row of a controller: column -> cell."""
    row = {name: _exact(resolved(card, launch=launch)) for name, launch in LAUNCHES.items()}
    adapted = LORA.get(card.name, "exact")
    quantised = resolved(card, **{"lora.r": 8, "quantize": "4bit"})
    row["LoRA"] = adapted
    row["4-bit base"] = _over_four_bits(card, adapted) if isinstance(quantised, Plan) else REFUSED
    row["bf16"] = _in_bf16(card)
    return row


def _over_four_bits(card: GeometryCard, adapted: str) -> str:
    return adapted if card.name in FOUR_BITS else "accepted, untested"


def _exact(found: object) -> str:
    return "exact" if isinstance(found, Plan) else REFUSED


def _in_bf16(card: GeometryCard) -> str:
    if card.needs_fp32:
        return "ε mostly lost: `auto` is fp32"
    if card.companion or (card.passes == 1 and "rho" not in card.options.model_fields):
        return "nothing to round"
    return "exact, ε in fp32" if card.name == "shapo-token" else "ε rounded, `survival` logged"


def scale_table() -> list[str]:
    """The table."""
    columns = (*LAUNCHES, "LoRA", "4-bit base", "bf16")
    rows = [(f"`{card.name}`", *(cells(card)[column] for column in columns)) for card in controllers()]
    return table(("controller", *columns), rows)
