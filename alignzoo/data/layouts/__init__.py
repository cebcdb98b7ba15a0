"""The built-in layouts: each converts its rows to the canonical form."""

from __future__ import annotations

from alignzoo.data.layouts import pairs, pku, ranked, unpaired
from alignzoo.data.layouts.layout import Layout

LAYOUTS: dict[str, Layout] = {
    layout.name: layout for layout in (*pairs.LAYOUTS, pku.LAYOUT, *unpaired.LAYOUTS, *ranked.LAYOUTS)
}
