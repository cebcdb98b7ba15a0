"""Which layout the rows of a source have: a built-in one or that of a plugin.

A layout is recognised by its columns and the types in its first rows, or forced by name. Plugins provide others (hook
``alignzoo_formats``); they are tried only if no built-in one fits, so installing a plugin does not affect other runs.
"""

from __future__ import annotations

import contextlib
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING

from alignzoo.base.suggest import nearest
from alignzoo.contract.card import Extension
from alignzoo.data import fields
from alignzoo.data.extras import OPTIONAL_FIELDS
from alignzoo.data.fields import Row
from alignzoo.data.layout import Layout
from alignzoo.data.shapes import SHAPES
from alignzoo.errors import BrokenPluginError, DataError, UnknownNameError, UsageError, contained
from alignzoo.plugin.build import import_target
from alignzoo.plugin.discover import OWN_DISTRIBUTION
from alignzoo.plugin.plugin import Plugin
from alignzoo.plugin.registry import registry

if TYPE_CHECKING:
    from datasets import Dataset

_SAMPLED_ROWS = 100

__all__ = ["Layout", "choose_layout", "layouts"]


def choose_layout(rows: Dataset, name: str | None = None) -> Layout:
    """The layout called ``name``, or the one that fits the first rows.

    Raises:
        UsageError: there is no layout of that name, or several plugins provide it.
        BrokenPluginError: the plugin that provides it is broken.
        DataError: no layout, or more than one, fits.
    """
    if name is None:
        return _detect(rows)
    known = registry()
    try:
        return _brought_by(known.plugin_of(card := known.find_extension("format", name)), card)
    except UnknownNameError as error:
        names = [card.name for _, card in known.extensions("format")]
        close = nearest(name, names)
        meant = f"; did you mean {close[0]}?" if close else ""
        raise UsageError(f"--data.format {name}: no such layout{meant}", hint=f"layouts: {', '.join(names)}") from error


def layouts(*, own: bool) -> list[Layout]:
    """The built-in layouts, or those of other plugins, by name; a broken one matters only to the run that names it."""
    found = []
    for plugin, card in registry().extensions("format"):
        if (plugin.distribution == OWN_DISTRIBUTION) == own:
            with contextlib.suppress(BrokenPluginError):
                found.append(_brought_by(plugin, card))
    return found


def _brought_by(plugin: Plugin, card: Extension) -> Layout:
    """The layout of a plugin's card."""
    layout = import_target(card)
    if not isinstance(layout, Layout):
        raise BrokenPluginError(
            f"format {card.name!r}: {card.target} is a {type(layout).__name__}, expected a Layout",
            hint=f"fix or uninstall {plugin.distribution}",
        )
    if layout.shape not in SHAPES:
        raise BrokenPluginError(
            f"format {card.name!r}: unknown shape {layout.shape!r}", hint=f"shapes: {', '.join(SHAPES)}"
        )
    optional = OPTIONAL_FIELDS[layout.shape]
    unknown = sorted(set(layout.gives) - set(optional))
    if unknown:
        raise BrokenPluginError(
            f"format {card.name!r}: `gives` names {unknown[0]!r}, which is not an optional field of a row",
            hint=f"optional fields: {', '.join(optional)}",
        )
    own = plugin.distribution == OWN_DISTRIBUTION
    return replace(layout, name=card.name, version="" if own else f"{plugin.distribution}:{plugin.fingerprint()}")


def _fits(layout: Layout, row: Row) -> bool:
    try:
        with contained():
            return bool(layout.fits(row))
    except Exception:  # a plugin's code on rows that are not meant for it
        return False


def _detect(rows: Dataset) -> Layout:
    sample: Row = {}
    known: list[Layout] = []
    for own in (True, False):  # a plugin's module is imported only where no built-in layout fits
        known += (these := layouts(own=own))
        for sample in islice(rows, _SAMPLED_ROWS):
            matches = [layout for layout in these if _fits(layout, sample)]
            if len(matches) == 1:
                return matches[0]
            if matches:
                names = " and ".join(layout.name for layout in matches)
                raise DataError(f"the columns fit several layouts: {names}", hint="choose one with --data.format")
    found = ", ".join(f"{name} ({fields.kind_of(sample.get(name))})" for name in rows.column_names) or "none"
    listed = "\n".join(f"    {layout.name}: {layout.columns}" for layout in known)
    raise DataError(
        f"the data has no known preference layout; columns found: {found}",
        hint=f"Rename the columns to one of these, or force a layout with --data.format:\n{listed}",
    )
