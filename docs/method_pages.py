"""The pages of methods, their figures, and the lists of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

from reference_blocks import cell, escaped, table

from alignzoo.cli.combine import example, refused
from alignzoo.cli.compat import NEEDS
from alignzoo.cli.curves import Panel, panels_of
from alignzoo.cli.describe import addresses_of, experimental_text, is_verified, needs_of, option_facts
from alignzoo.cli.drawing import svg
from alignzoo.cli.fields import FieldFacts
from alignzoo.cli.ls import in_order
from alignzoo.cli.search import OTHER, family_of
from alignzoo.contract.card import Card, Composition
from alignzoo.contract.kinds import KINDS
from alignzoo.contract.needs import PROBLEMS
from alignzoo.plugin.build import default_needs
from alignzoo.plugin.discover import OWN_DISTRIBUTION
from alignzoo.plugin.registry import registry

ROOT = Path(__file__).resolve().parents[1]
PAGES = ROOT / "docs" / "methods"
FIGURES = PAGES / "figures"
STANDARD = (
    "on a standard pair or response: 20 tokens of −4 nats each under reference and policy, scores 0.1 apart, the "
    "change spread evenly over tokens and, in a pair, over both sides"
)
NOTICE = "<!-- Written by docs/generate_methods.py from the method's card. Change the card, then run `make docs`. -->"

Entry = Card | Composition


def own_methods() -> list[Entry]:
    """The methods of this distribution, by kind and name; installed plugins of others are not documented here."""
    return [method for plugin, method in registry().entries() if plugin.distribution == OWN_DISTRIBUTION]


def page_name(method: Entry) -> str:
    return f"{method.kind}-{method.name}.md"


def method_page(method: Entry) -> str:
    """The page of one method, whole."""
    unconfirmed = experimental_text(registry().plugin_of(method), method)
    lines = [NOTICE, "", f"# {method.name}", "", f"*{method.kind}* · {escaped(method.summary)}.", ""]
    if unconfirmed:
        lines += [f"**Experimental.** {escaped(unconfirmed[0].upper() + unconfirmed[1:].rstrip('.'))}.", ""]
    if isinstance(method, Composition):
        lines += [
            f"A name for a combination: `--{method.kind} {method.name}` stands for `{method.flags()}`.",
            "The run says so and its plan lists the parts, so both spellings give the same run.",
            "",
        ]
    elif method.formula:
        lines += ["```text", *method.formula.split("; "), "```", ""]
    lines += _figure(method)
    if method.aliases:
        lines += [f"Also called: {', '.join(f'`{alias}`' for alias in method.aliases)}.", ""]
    lines += [] if method.kind == "judge" else ["<!-- test: dry-run -->"]  # judges need responses to judge
    lines += ["```bash", example(method), "```", ""]
    lines += _parts(method) if isinstance(method, Composition) else _card(method)
    return "\n".join(lines + _paper(method))


def _figure(method: Entry) -> list[str]:
    """The figure, and what it shows."""
    if not panels(method):
        return []
    title = " and ".join(panel.title for panel in panels(method))
    of = "." if panels(method)[0].title.startswith("weight") else f", {STANDARD}."
    return [f"![{method.name}: {title}](figures/{figure_name(method)})", "", f"With the default options{of}", ""]


def _paper(method: Entry) -> list[str]:
    """Who published it, and how to cite them."""
    paper = method.paper
    if paper is None:
        return []
    facts = ", ".join(filter(None, [paper.byline(), paper.venue or str(paper.year or "")]))
    link = f"[arXiv {paper.arxiv}]({paper.link})" if paper.arxiv else f"<{paper.link}>" if paper.link else ""
    shown = "; ".join(filter(None, [escaped(facts), link]))
    return [
        *("## Paper", "", f"*{escaped(paper.title)}*{f' ({shown})' if shown else ''}.", ""),
        *("```bibtex", paper.bibtex(paper.key(method.name)), "```", ""),
        *("`alignzoo cite` prints this for methods, recipes and runs.", ""),
    ]


def panels(method: Entry) -> tuple[Panel, ...]:
    """The diagrams of a method."""
    return _panels().get((method.kind, method.name), ())


@cache
def _panels() -> dict[tuple[str, str], tuple[Panel, ...]]:
    return {(card.kind, card.name): panels_of(card) for card in own_methods() if isinstance(card, Card)}


def figure_name(method: Entry) -> str:
    return f"{method.kind}-{method.name}.svg"


def figures() -> dict[Path, str]:
    """The figures of the methods that have one."""
    drawn = [method for method in own_methods() if panels(method)]
    return {FIGURES / figure_name(method): svg(panels(method), f"{method.kind} {method.name}") for method in drawn}


def _parts(method: Composition) -> list[str]:
    parts = [(kind, name) for kind, names in method.parts.items() for name in names]
    return ["## Parts", "", *(f"- [{kind} {name}]({kind}-{name}.md)" for kind, name in parts), ""]


def _refused(card: Card) -> list[str]:
    """What the method cannot be combined with."""
    found = refused(card)
    if not found:
        return ["- **Not with:** nothing; it can be combined with every method of the other kinds."]
    named = ", ".join(f"[{kind} {name}]({kind}-{name}.md)" for kind, names in found.items() for name in names)
    return [f"- **Not with:** {named}; `alignzoo compat --{card.kind} {card.name}` says why."]


def _card(card: Card) -> list[str]:
    lines = ["## Options", ""]
    options = option_facts(card)
    if options:
        lines += option_table(options, card.kind)
    else:
        lines.append("None.")
    lines += ["", "## Facts", "", *_needs(card)]
    lines += [f"- **Family:** {card.family}."] if card.family else []
    lines += [f"- **Against:** {PROBLEMS[problem]}." for problem in PROBLEMS if problem in card.addresses]
    lines += [f"- **{name.capitalize()}:** {text}." for name, text in card.facts() if text]
    lines += [*_refused(card), f"- **Code:** `{card.target}`", "", "## Verified", ""]
    if card.verified:
        lines += ["| against | test |", "| --- | --- |"]
        lines += [f"| {cell(source.against)} | `{source.test}` |" for source in card.verified]
    else:
        lines.append("Against nothing yet.")
    return [*lines, ""]


def _needs(card: Card) -> list[str]:
    needs = sorted(default_needs(card))
    if not needs:
        return ["- **Needs:** nothing extra."]
    return [f"- **Needs:** {need}: {NEEDS[need]}." for need in needs]


def option_table(options: Iterable[FieldFacts], kind: str) -> list[str]:
    """A Markdown table of a method's options."""
    rows = [(f"`--{kind}.{o.name}`", type_text(o), _default(o), cell(o.bounds_text()), cell(o.help)) for o in options]
    return table(("option", "type", "default", "bounds", "meaning"), rows)


def _default(facts: FieldFacts) -> str:
    return "required" if facts.required else code(facts.default_text())


def code(text: str) -> str:
    return "`{}`".format(text.replace("|", "\\|")) if text else "–"


def type_text(facts: FieldFacts) -> str:
    if facts.choices:
        return ", ".join(f"`{choice}`" for choice in facts.choices)
    return {"INT": "int", "NUMBER": "number", "BOOL": "yes/no", "TEXT": "text", "LIST": "names"}.get(
        facts.type, facts.type.lower()
    )


def families(kind: str) -> dict[str, list[Entry]]:
    """The methods of a kind by family, in the order of ``alignzoo ls``."""
    found: dict[str, list[Entry]] = {}
    for plugin, method in in_order([(registry().plugin_of(method), method) for method in own_methods()]):
        if method.kind == kind:
            found.setdefault(family_of((plugin, method)) or OTHER, []).append(method)
    return found


def method_table(methods: Sequence[Entry]) -> list[str]:
    """One row per method."""
    rows = []
    for method in methods:
        plugin = registry().plugin_of(method)
        paper = method.paper
        year = "–" if paper is None or paper.year is None else str(paper.year)
        also = f" (= `{method.flags()}`)" if isinstance(method, Composition) else ""
        mark = "experimental" if experimental_text(plugin, method) else "yes" if is_verified(plugin, method) else "–"
        needs = ", ".join(needs_of(plugin, method)) or "–"
        against = ", ".join(addresses_of(plugin, method)) or "–"
        named = f"[`{method.name}`]({page_name(method)})"
        rows.append((named, year, mark, needs, against, cell(method.summary) + also))
    return table(("name", "year", "verified", "needs", "against", "what it is"), rows)


def names_by_kind(prefix: str) -> list[str]:
    """All names by kind and family, as links that start with ``prefix``."""
    lines = []
    for kind in KINDS.values():
        found = families(kind.name)
        lines += [f"**{kind.title}** (`--{kind.name}`, {sum(map(len, found.values()))})", ""] if found else []
        for family, methods in found.items():
            links = ", ".join(f"[`{method.name}`]({prefix}{page_name(method)})" for method in methods)
            lines.append(f"- {links}" if len(found) == 1 else f"- {family}: {links}")
        lines += [""] if found else []
    return lines[:-1]


def index_page() -> str:
    """``docs/methods/README.md``: the methods by kind and family."""
    lines = [NOTICE, "", "# Methods", ""]
    counts = {kind: sum(method.kind == kind for method in own_methods()) for kind in KINDS}
    lines += [
        f"{', '.join(f'{counts[kind.name]} {kind.title.lower()}' for kind in KINDS.values() if counts[kind.name])}.",
        "Any loss, or mixture of losses, under any stack of robust wrappers, with any geometry controller.",
        "`alignzoo ls` prints this list for your environment, plugins included, and finds methods by what they need,",
        "by the problem they address and by words; `alignzoo info NAME` prints a page and draws the method;",
        "`alignzoo compat` says which methods can be combined; `alignzoo cite` prints BibTeX of what a run used.",
        "",
        "*Verified*: a test compares the method with something we did not write; its page names both. *Against*: what",
        "its authors claim to mitigate, not what we have measured.",
        "",
        '<div id="catalogue"></div>',
        "",
    ]
    for kind in KINDS.values():
        found = families(kind.name)
        lines += [f"## {kind.title}", ""] if found else []
        for family, methods in found.items():
            lines += [f"### {family[0].upper()}{family[1:]}", ""] if list(found) != [OTHER] else []
            lines += [*method_table(methods), ""]
    return "\n".join(lines)


def navigation() -> list[str]:
    """The method pages as ``mkdocs.yml`` lists them."""
    lines = []
    for kind in KINDS.values():
        pages = [f"          - {m.name}: methods/{page_name(m)}" for m in own_methods() if m.kind == kind.name]
        lines += [f"      - {kind.title}:", *pages] if pages else []
    return lines
