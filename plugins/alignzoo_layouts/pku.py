"""PKU-SafeRLHF: two responses, with labels for which is better and which is safer."""

from __future__ import annotations

from collections.abc import Collection

from alignzoo.data import fields
from alignzoo.data.extras import extras
from alignzoo.data.fields import Row
from alignzoo.data.layout import Layout
from alignzoo.data.rows import Drop, PreferenceRow
from alignzoo_layouts.checks import checked

_SAFETY = ("is_response_0_safe", "is_response_1_safe")
_HELPFULNESS = "better_response_id"


def _label_column(columns: Collection[str]) -> str:
    """The deciding label: safety if present, else overall preference."""
    return "safer_response_id" if "safer_response_id" in columns else _HELPFULNESS


def _notes(columns: Collection[str]) -> tuple[str, ...]:
    return (f"the chosen response is taken from {_label_column(columns)}",)


def _normalise(row: Row) -> PreferenceRow | Drop:
    return _by(row, _label_column(row))


def _by_helpfulness(row: Row) -> PreferenceRow | Drop:
    return _by(row, _HELPFULNESS)


def _by(row: Row, label: str) -> PreferenceRow | Drop:
    better = fields.choice(row, label)
    extra = extras(row)
    if all(name in row for name in _SAFETY):
        safe = [fields.flag(row, name) for name in _SAFETY]
        extra |= {"chosen_safe": safe[better], "rejected_safe": safe[1 - better]}
    prompt = fields.text(row, "prompt")
    responses = [fields.text(row, name) for name in ("response_0", "response_1")]
    return checked(PreferenceRow(prompt, responses[better], responses[1 - better], **extra))


def _fits(row: Row) -> bool:
    texts = all(isinstance(row.get(name), str) for name in ("prompt", "response_0", "response_1"))
    return texts and isinstance(row.get(_label_column(row)), int)


PKU_SAFERLHF = Layout(
    "pku-saferlhf",
    "prompt, response_0, response_1: text; safer_response_id or better_response_id: 0 or 1; "
    "is_response_0_safe, is_response_1_safe: true/false",
    _fits,
    _normalise,
    _SAFETY,
    notes=_notes,
)
PKU_HELPFUL = Layout(
    "pku-saferlhf-helpful",
    "the same, chosen by better_response_id even where there is a safety label; only by name",
    lambda row: False,
    _by_helpfulness,
    _SAFETY,
    notes=lambda columns: (f"the chosen response is taken from {_HELPFULNESS}",),
)
