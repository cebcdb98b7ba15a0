"""A page as one HTML file."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import Any

from alignzoo.version import __version__
from alignzoo_report.blocks import Page, charts_in

LIBRARIES = ("vega", "vega-lite", "vega-interpreter")
"""In the order in which they are loaded."""


def html(page: Page) -> str:
    """The page: no file beside it, no request, everything that others wrote escaped."""
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(_read("templates", "page.html"))
    charts = [chart for section in page.sections for chart in charts_in(section.blocks)]
    return template.render(
        page=page,
        version=__version__,
        style=Markup(_read("templates", "style.css")),
        scripts=[Markup(script) for script in _scripts()] if charts else [],
        charts={chart.name: chart.spec for chart in charts},
        libraries=[(name, facts["version"]) for name, facts in versions().items()],
    )


@cache
def versions() -> dict[str, Any]:
    """The chart library's parts, with ``version`` and ``sha256``."""
    found: dict[str, Any] = json.loads(_read("assets", "versions.json"))
    return found


def _scripts() -> list[str]:
    return [*(_read("assets", f"{name}.js") for name in LIBRARIES), _read("templates", "page.js")]


@cache
def _read(folder: str, name: str) -> str:
    return (files("alignzoo_report") / folder / name).read_text(encoding="utf-8")
