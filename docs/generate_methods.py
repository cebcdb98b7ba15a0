"""Write what the documentation takes from the code: method pages, what stands between markers, the sandbox's record.

``python docs/generate_methods.py`` writes, ``--check`` only says what is out of step (exit 1). ``make docs`` calls it,
and a test compares its output with the committed files.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from alignzoo_sandbox import EVALUATION_PROMPTS, MODEL_PATH, TRAIN_PAIRS, VALIDATION_PAIRS
from reference_blocks import cell, escaped, hook_blocks, interface_blocks, rule_tables, table

from alignzoo.base.safe_yaml import read_yaml
from alignzoo.cli.compat import NEEDS
from alignzoo.cli.describe import option_facts, paper_url
from alignzoo.cli.fields import FieldFacts, field_facts
from alignzoo.contract.card import Card, Composition
from alignzoo.contract.kinds import KINDS
from alignzoo.plan.settings import Settings
from alignzoo.plugin.build import default_needs, readers
from alignzoo.plugin.discover import OWN_DISTRIBUTION
from alignzoo.plugin.registry import registry

ROOT = Path(__file__).resolve().parents[1]
PAGES = ROOT / "docs" / "methods"
NOTICE = "<!-- Written by docs/generate_methods.py from the method's card. Change the card, then run `make docs`. -->"

Entry = Card | Composition


def own_methods() -> list[Entry]:
    """The methods of this distribution, by kind and name; installed plugins of others are not documented here."""
    return [method for plugin, method in registry().entries() if plugin.distribution == OWN_DISTRIBUTION]


def page_name(method: Entry) -> str:
    return f"{method.kind}-{method.name}.md"


def method_page(method: Entry) -> str:
    """The page of one method, whole."""
    lines = [NOTICE, "", f"# {method.name}", "", f"*{method.kind}* · {escaped(method.summary)}.", ""]
    if isinstance(method, Composition):
        lines += [
            f"A name for a combination: `--{method.kind} {method.name}` stands for `{method.flags()}`.",
            "The run says so and its plan lists the parts, so both spellings give the same run.",
            "",
        ]
    else:
        lines += ["```text", *method.formula.split("; "), "```", ""]
    if method.paper is not None:
        url = paper_url(method.paper)
        link = f", [arXiv {method.paper.arxiv}]({url})" if url else ""
        lines += [f"Paper: *{method.paper.title}*{link}.", ""]
    if method.aliases:
        lines += [f"Also called: {', '.join(f'`{alias}`' for alias in method.aliases)}.", ""]
    lines += ["<!-- test: dry-run -->", "```bash", example(method), "```", ""]
    return "\n".join(lines + (_parts(method) if isinstance(method, Composition) else _card(method)))


def example(method: Entry) -> str:
    """A command line that uses the method, with its first numeric option stated at its default."""
    beside = "".join(f"--{card.kind} {card.name} " for card in readers(KINDS[method.kind], registry())[:1])
    words = f"alignzoo run {beside}--{method.kind} {method.name}"
    if isinstance(method, Composition):
        return words
    required = [name for name, info in method.options.model_fields.items() if info.is_required()]
    words += "".join(f" --{method.kind}.{name} {name.upper()}" for name in required)
    numeric = [facts for facts in option_facts(method) if facts.type in ("INT", "NUMBER") and facts.default is not None]
    return words + (f" --{method.kind}.{numeric[0].name} {numeric[0].default_text()}" if numeric else "")


def _parts(method: Composition) -> list[str]:
    parts = [(kind, name) for kind, names in method.parts.items() for name in names]
    return ["## Parts", "", *(f"- [{kind} {name}]({kind}-{name}.md)" for kind, name in parts), ""]


def _card(card: Card) -> list[str]:
    lines = ["## Options", ""]
    options = option_facts(card)
    if options:
        lines += option_table(options, card.kind)
    else:
        lines.append("None.")
    lines += ["", "## Facts", "", *_needs(card)]
    lines += [f"- **{name.capitalize()}:** {text}." for name, text in card.facts() if text]
    lines += [f"- **Code:** `{card.target}`", "", "## Verified", ""]
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
    rows = [(f"`--{kind}.{o.name}`", _type(o), _default(o), cell(o.bounds_text()), cell(o.help)) for o in options]
    return table(("option", "type", "default", "bounds", "meaning"), rows)


def _default(facts: FieldFacts) -> str:
    return "required" if facts.required else _code(facts.default_text())


def _code(text: str) -> str:
    return "`{}`".format(text.replace("|", "\\|")) if text else "–"


def _type(facts: FieldFacts) -> str:
    if facts.choices:
        return ", ".join(f"`{choice}`" for choice in facts.choices)
    return {"INT": "int", "NUMBER": "number", "BOOL": "yes/no", "TEXT": "text", "LIST": "names"}.get(
        facts.type, facts.type.lower()
    )


def method_table(prefix: str, kind: str | None = None) -> list[str]:
    """All methods, or those of one kind, in one table; links start with ``prefix``."""
    rows = []
    for method in own_methods():
        if kind not in (None, method.kind):
            continue
        paper = method.paper
        link = f"[{paper.arxiv}]({paper_url(paper)})" if paper is not None and paper.arxiv else "–"
        checks = cell(", ".join(source.against for source in getattr(method, "verified", ())))
        summary = f"{method.summary} (= `{method.flags()}`)" if isinstance(method, Composition) else method.summary
        named = f"[`{method.name}`]({prefix}{page_name(method)})"
        rows.append(([] if kind else [method.kind]) + [named, cell(summary), link, checks])
    return table([*([] if kind else ["kind"]), "name", "what it is", "arXiv", "verified against"], rows)


def index_page() -> str:
    """``docs/methods/README.md``: the methods by kind."""
    lines = [NOTICE, "", "# Methods", ""]
    lines += [
        "Any loss, or mixture of losses, under any stack of robust wrappers, with any geometry controller.",
        "`alignzoo ls` prints this list for your environment, plugins included; `alignzoo info NAME` prints a page;",
        "`alignzoo compat` says which methods can be combined. *Verified against* names what the implementation was",
        "checked against, by a test of the given name.",
        "",
    ]
    for kind in KINDS.values():
        lines += [f"## {kind.title}", "", *method_table("", kind.name), ""]
    return "\n".join(lines)


def settings_table() -> list[str]:
    """Every setting of a run that belongs to no method."""
    rows = []
    for name, info in Settings.model_fields.items():
        facts = field_facts(name, info)
        flag = f"--{Settings.flag(name)}"
        stated = re.search(r" \[default: (.*)]$", facts.help)
        default = cell(stated[1]) if stated else _code(facts.default_text())
        meaning = facts.help[: stated.start()] if stated else facts.help
        shown = f"`{flag}`, `--no-{flag[2:]}`" if facts.is_bool else f"`{flag}`"
        rows.append((shown, _type(facts), default, cell(facts.bounds_text()), cell(meaning)))
    return table(("flag", "type", "default", "bounds", "meaning"), rows)


def recipe_table() -> list[str]:
    """The shipped recipes."""
    files = sorted(
        [*(ROOT / "recipes").glob("*.yaml"), *(ROOT / "plugins").glob("*/*.yaml")], key=lambda path: path.stem
    )
    contents = {path.stem: read_yaml(path) for path in sorted(files, key=lambda path: path.stem)}
    return table(("recipe", "what it does"), [(f"`{name}`", cell(c["description"])) for name, c in contents.items()])


def sandbox_record() -> list[str]:
    """How the embedded model came about and what it does before any training, from its provenance file."""
    facts = json.loads((MODEL_PATH / "provenance.json").read_text(encoding="utf-8"))
    lines = [
        f"The shipped model has {facts['parameters']:,} parameters. It was pretrained with seed {facts['seed']} for "
        f"{facts['steps']:,} steps of {facts['batch']} chats, which took {facts['seconds']:.0f} s on "
        f"{facts['threads']} threads. Sizes: {TRAIN_PAIRS:,} training pairs, {VALIDATION_PAIRS} held-out pairs, "
        f"{EVALUATION_PROMPTS} prompts in each evaluation split.",
        "",
        "What it answers before any preference training:",
        "",
    ]
    rates = {name: value for name, value in facts["rates"].items() if not name.startswith("broken/")}
    words = {"asr": "attack success", "refusal": "over-refusal"}
    rows = []
    for name, value in rates.items():
        rate, _, split = name.partition("/")
        broken = facts["rates"].get(f"broken/{split}")
        rows.append((f"{words.get(rate, rate)}, {split}", f"{value:.3f}", "–" if broken is None else f"{broken:.3f}"))
    return lines + table(("share of prompts", "rate", "broken"), rows)


def navigation() -> list[str]:
    """The method pages as ``mkdocs.yml`` lists them."""
    return [f"      - {method.kind} {method.name}: methods/{page_name(method)}" for method in own_methods()]


def with_block(path: Path, name: str, lines: Sequence[str], text: str | None = None) -> str:
    """A page's text with the part between its markers ``generated: NAME`` replaced (``# generated: NAME`` in YAML).

    Raises:
        ValueError: the page has no such markers.
    """
    text = path.read_text(encoding="utf-8") if text is None else text
    begin, end = f"<!-- generated: {name} -->", f"<!-- end: {name} -->"
    body = ["", *lines, ""]
    if path.suffix == ".yml":
        begin, end, body = f"# generated: {name}\n", f"      # end: {name}", list(lines)
    pattern = re.compile(re.escape(begin) + r".*?" + re.escape(end), re.DOTALL)
    if not pattern.search(text):
        raise ValueError(f"{path}: no lines '{begin}' and '{end}'")
    return pattern.sub(lambda _: "\n".join([begin.rstrip("\n"), *body, end]), text)


def with_blocks(path: Path, parts: Mapping[str, Sequence[str]]) -> str:
    """A page's text with all these parts replaced."""
    text = path.read_text(encoding="utf-8")
    for name, lines in parts.items():
        text = with_block(path, name, lines, text=text)
    return text


def outputs() -> dict[Path, str]:
    """Every file this script keeps in step, with the text it should have."""
    docs = ROOT / "docs"
    files = {PAGES / page_name(method): method_page(method) for method in own_methods()}
    files[PAGES / "README.md"] = index_page()
    files[ROOT / "README.md"] = with_block(ROOT / "README.md", "methods", method_table("docs/methods/"))
    files[ROOT / "mkdocs.yml"] = with_block(ROOT / "mkdocs.yml", "methods", navigation())
    parts = {
        "runs": {"settings": settings_table(), "recipes": recipe_table()},
        "sandbox": {"record": sandbox_record()},
        "interfaces": interface_blocks(),
        "hooks": hook_blocks(),
        "contract": rule_tables(),
    }
    pages = {docs / f"{name}.md": blocks for name, blocks in parts.items()}
    return files | {path: with_blocks(path, blocks) for path, blocks in pages.items()}


def leftovers(files: Iterable[Path]) -> list[Path]:
    """Pages of methods that are gone."""
    return sorted(set(PAGES.glob("*.md")) - set(files))


def main(arguments: Sequence[str]) -> int:
    wanted = outputs()
    changed = [path for path, text in wanted.items() if not path.is_file() or path.read_text(encoding="utf-8") != text]
    gone = leftovers(wanted)
    if "--check" in arguments:
        for path in (*changed, *gone):
            print(f"out of step: {path.relative_to(ROOT)}")
        return 1 if changed or gone else 0
    PAGES.mkdir(parents=True, exist_ok=True)
    for path in changed:
        path.write_text(wanted[path], encoding="utf-8")
        print(f"written: {path.relative_to(ROOT)}")
    for path in gone:
        path.unlink()
        print(f"removed: {path.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
