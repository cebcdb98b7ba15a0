"""The layouts preference data comes in, one table entry each, and how a row of each becomes a ``PreferenceRow``.

A layout is recognised by its columns and by the types in its first rows, or forced by name. Plugins bring others
(hook ``alignzoo_formats``); they are looked at where no built-in one fits, so that installing one changes no other run.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Any

from alignzoo.base.suggest import nearest
from alignzoo.contract.card import Extension
from alignzoo.data import fields
from alignzoo.data.extras import OPTIONAL_FIELDS, extras
from alignzoo.data.fields import Row
from alignzoo.data.rows import Drop, Message, PreferenceRow, is_blank
from alignzoo.data.transcripts import is_transcript, parse_transcript
from alignzoo.errors import BrokenPluginError, DataError, UnknownNameError, UsageError, contained
from alignzoo.plugin.build import import_target
from alignzoo.plugin.plugin import Plugin
from alignzoo.plugin.registry import registry

if TYPE_CHECKING:
    from datasets import Dataset

_SAMPLED_ROWS = 100
_PKU_SAFETY = ("is_response_0_safe", "is_response_1_safe")


@dataclass(frozen=True)
class Layout:
    """``columns`` is for people; ``fits`` looks at one row; ``normalise`` may raise ``FieldError``.

    ``safety_columns``: where the layout takes ``chosen_safe`` and ``rejected_safe`` from, if all of them are there.
    ``gives``: optional fields of ``PreferenceRow`` that it fills in whatever the columns are called.
    ``version``: a hash of the plugin that brings it, empty for the built-in ones.
    """

    name: str
    columns: str
    fits: Callable[[Row], bool]
    normalise: Callable[[Row], PreferenceRow | Drop]
    safety_columns: tuple[str, ...] = ()
    gives: tuple[str, ...] = ()
    version: str = ""


def choose_layout(rows: Dataset, name: str | None = None) -> Layout:
    """The layout called ``name``, or the one that the first rows have.

    Raises:
        UsageError: there is no layout of that name, or several plugins bring it.
        BrokenPluginError: the plugin that brings it does not work.
        DataError: no layout, or more than one, fits.
    """
    if name is None:
        return _detect(rows)
    if name in LAYOUTS:
        return LAYOUTS[name]
    known = registry()
    names = [*LAYOUTS, *(card.name for _, card in known.extensions("format"))]
    try:
        return _brought_by(known.plugin_of(card := known.find_extension("format", name)), card)
    except UnknownNameError as error:
        close = nearest(name, names)
        meant = f" Did you mean {close[0]}?" if close else ""
        raise UsageError(
            f"--data.format {name}: no such layout.{meant}", hint=f"Layouts: {', '.join(names)}"
        ) from error


def _brought_by(plugin: Plugin, card: Extension) -> Layout:
    """The layout of a plugin's card."""
    layout = import_target(card)
    if not isinstance(layout, Layout):
        raise BrokenPluginError(
            f"format {card.name!r}: {card.target} is a {type(layout).__name__}, expected a Layout",
            hint=f"repair or uninstall {plugin.distribution}",
        )
    unknown = sorted(set(layout.gives) - set(OPTIONAL_FIELDS))
    if unknown:
        raise BrokenPluginError(
            f"format {card.name!r}: gives names {unknown[0]!r}, which is no optional field of a row",
            hint=f"there are: {', '.join(OPTIONAL_FIELDS)}",
        )
    return replace(layout, name=card.name, version=f"{plugin.distribution}:{plugin.fingerprint()}")


def _of_plugins() -> list[Layout]:
    """The layouts of all plugins that work; a broken one matters only to the run that names it."""
    found = []
    for plugin, card in registry().extensions("format"):
        with contextlib.suppress(BrokenPluginError):
            found.append(_brought_by(plugin, card))
    return found


def _fits(layout: Layout, row: Row) -> bool:
    try:
        with contained():
            return bool(layout.fits(row))
    except Exception:  # a stranger's code looking at rows that are not meant for it
        return False


def _detect(rows: Dataset) -> Layout:
    sample: Row = {}
    of_plugins: list[Layout] = []
    for layouts in (list(LAYOUTS.values()), of_plugins):
        if layouts is of_plugins:  # not before: a plugin's module is imported only where no built-in layout fits
            of_plugins += _of_plugins()
        for sample in islice(rows, _SAMPLED_ROWS):
            matches = [layout for layout in layouts if _fits(layout, sample)]
            if len(matches) == 1:
                return matches[0]
            if matches:
                names = " and ".join(layout.name for layout in matches)
                raise DataError(f"The columns fit several layouts: {names}", hint="Choose one with --data.format")
    found = ", ".join(f"{name} ({fields.kind_of(sample.get(name))})" for name in rows.column_names) or "none"
    known = "\n".join(f"    {layout.name}: {layout.columns}" for layout in (*LAYOUTS.values(), *of_plugins))
    raise DataError(
        f"The data has no known preference layout. Columns found: {found}",
        hint=f"Rename the columns to one of these, or force a layout with --data.format:\n{known}",
    )


def _checked(row: PreferenceRow) -> PreferenceRow | Drop:
    for side, text in (("prompt", row.prompt), ("chosen", row.chosen), ("rejected", row.rejected)):
        if is_blank(text):
            return Drop(f"empty-{side}")
    return Drop("identical-sides") if row.chosen == row.rejected else row


def _explicit(row: Row) -> PreferenceRow | Drop:
    prompt, chosen, rejected = (fields.text(row, side) for side in ("prompt", "chosen", "rejected"))
    return _checked(PreferenceRow(prompt, chosen, rejected, **extras(row)))


def _implicit(row: Row) -> PreferenceRow | Drop:
    chosen, rejected = fields.text(row, "chosen"), fields.text(row, "rejected")
    for side, text in (("chosen", chosen), ("rejected", rejected)):
        if is_blank(text):
            return Drop(f"empty-{side}")
    if chosen == rejected:
        return Drop("identical-sides")
    shared = next((at for at, (a, b) in enumerate(zip(chosen, rejected, strict=False)) if a != b), None)
    cut = min(len(chosen), len(rejected)) if shared is None else shared
    # Inside a word the split would be arbitrary: the reply starts at the white space before the word that differs.
    while cut > 0 and not chosen[cut - 1].isspace():
        cut -= 1
    prompt = chosen[:cut].rstrip()
    if not prompt:
        return Drop("no-common-prompt")
    return _checked(PreferenceRow(prompt, chosen[len(prompt) :], rejected[len(prompt) :], **extras(row)))


def _same_conversation(
    chosen: list[Message], rejected: list[Message], extra: dict[str, Any], *, transcript: bool = False
) -> PreferenceRow | Drop:
    """Two whole conversations: the last turn is the reply, everything before it is the prompt and must agree."""
    for side, conversation in (("chosen", chosen), ("rejected", rejected)):
        if not conversation:
            return Drop(f"empty-{side}")
    if chosen[:-1] != rejected[:-1] or not chosen[:-1]:
        return Drop("no-common-prompt")
    return _replies(chosen[:-1], chosen[-1:], rejected[-1:], extra, transcript=transcript)


def _replies(
    prompt: list[Message],
    chosen: list[Message],
    rejected: list[Message],
    extra: dict[str, Any],
    transcript: bool = False,
) -> PreferenceRow | Drop:
    for side, reply in (("chosen", chosen), ("rejected", rejected)):
        if not reply:
            return Drop(f"empty-{side}")
        if len(reply) > 1:
            # Training on a reply of several turns would train on the user's turns in between.
            return Drop("several-turns-in-reply")
        if reply[0]["role"] != "assistant":
            return Drop("reply-not-by-assistant")
    return _checked(PreferenceRow(prompt, chosen, rejected, transcript=transcript, **extra))


def _conversational(row: Row) -> PreferenceRow | Drop:
    prompt, chosen, rejected = (fields.messages(row, side) for side in ("prompt", "chosen", "rejected"))
    return _replies(prompt, chosen, rejected, extras(row))


def _implicit_conversational(row: Row) -> PreferenceRow | Drop:
    return _same_conversation(fields.messages(row, "chosen"), fields.messages(row, "rejected"), extras(row))


def _hh_rlhf(row: Row) -> PreferenceRow | Drop:
    chosen, rejected = (parse_transcript(fields.text(row, side)) for side in ("chosen", "rejected"))
    if not chosen or not rejected:
        return Drop("not-a-transcript")
    return _same_conversation(chosen, rejected, extras(row), transcript=True)


def _ultrafeedback(row: Row) -> PreferenceRow | Drop:
    prompt = fields.text(row, "prompt")
    chosen, rejected = fields.messages(row, "chosen"), fields.messages(row, "rejected")
    if len(chosen) == len(rejected) == 1:
        return _replies([{"role": "user", "content": prompt}], chosen, rejected, extras(row))
    return _same_conversation(chosen, rejected, extras(row))


def pku_label_column(row: Row) -> str:
    """Which label of PKU-SafeRLHF decides: safety where it is given, else overall preference."""
    return "safer_response_id" if "safer_response_id" in row else "better_response_id"


def _pku_saferlhf(row: Row) -> PreferenceRow | Drop:
    better = fields.choice(row, pku_label_column(row))
    extra = extras(row)
    if all(name in row for name in _PKU_SAFETY):
        safe = [fields.flag(row, name) for name in _PKU_SAFETY]
        extra |= {"chosen_safe": safe[better], "rejected_safe": safe[1 - better]}
    prompt = fields.text(row, "prompt")
    responses = [fields.text(row, name) for name in ("response_0", "response_1")]
    return _checked(PreferenceRow(prompt, responses[better], responses[1 - better], **extra))


def _typed(row: Row, chosen: type, prompt: type | None) -> bool:
    """Whether both sides are of one type and the prompt is of the other (None: there is no prompt column)."""
    if not isinstance(row.get("chosen"), chosen) or not isinstance(row.get("rejected"), chosen):
        return False
    return "prompt" not in row if prompt is None else isinstance(row.get("prompt"), prompt)


def _sides_are_transcripts(row: Row) -> bool:
    return is_transcript(row["chosen"]) and is_transcript(row["rejected"])


def _fits_pku(row: Row) -> bool:
    texts = all(isinstance(row.get(name), str) for name in ("prompt", "response_0", "response_1"))
    return texts and isinstance(row.get(pku_label_column(row)), int)


LAYOUTS: dict[str, Layout] = {
    layout.name: layout
    for layout in (
        Layout("explicit", "prompt, chosen, rejected: text", lambda row: _typed(row, str, str), _explicit),
        Layout(
            "conversational",
            "prompt, chosen, rejected: chat messages",
            lambda row: _typed(row, list, list),
            _conversational,
        ),
        Layout(
            "implicit",
            "chosen, rejected: text that begins with the same prompt",
            lambda row: _typed(row, str, None) and not _sides_are_transcripts(row),
            _implicit,
        ),
        Layout(
            "implicit-conversational",
            "chosen, rejected: chat messages that begin with the same turns",
            lambda row: _typed(row, list, None),
            _implicit_conversational,
        ),
        Layout(
            "hh-rlhf",
            r"chosen, rejected: transcripts '\n\nHuman: …\n\nAssistant: …'",
            lambda row: _typed(row, str, None) and _sides_are_transcripts(row),
            _hh_rlhf,
        ),
        Layout(
            "pku-saferlhf",
            "prompt, response_0, response_1: text; safer_response_id or better_response_id: 0 or 1; "
            "is_response_0_safe, is_response_1_safe: true/false",
            _fits_pku,
            _pku_saferlhf,
            _PKU_SAFETY,
        ),
        Layout(
            "ultrafeedback",
            "prompt: text; chosen, rejected: chat messages that begin with it; score_chosen, score_rejected: numbers",
            lambda row: _typed(row, list, str),
            _ultrafeedback,
        ),
    )
}
