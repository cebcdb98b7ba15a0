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
from method_pages import (
    FIGURES,
    PAGES,
    code,
    figures,
    index_page,
    method_page,
    names_by_kind,
    navigation,
    own_methods,
    page_name,
    type_text,
)
from reference_blocks import cell, hook_blocks, interface_blocks, rule_tables, table
from scale_blocks import scale_table

from alignzoo.base.safe_yaml import read_yaml
from alignzoo.cli.fields import field_facts
from alignzoo.plan.settings import Settings

ROOT = Path(__file__).resolve().parents[1]


def settings_table() -> list[str]:
    """Every setting of a run that belongs to no method."""
    rows = []
    for name, info in Settings.model_fields.items():
        facts = field_facts(name, info)
        flag = f"--{Settings.flag(name)}"
        stated = re.search(r" \[default: (.*)]$", facts.help)
        default = cell(stated[1]) if stated else code(facts.default_text())
        meaning = facts.help[: stated.start()] if stated else facts.help
        shown = f"`{flag}`, `--no-{flag[2:]}`" if facts.is_bool else f"`{flag}`"
        rows.append((shown, type_text(facts), default, cell(facts.bounds_text()), cell(meaning)))
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
    files[ROOT / "README.md"] = with_block(ROOT / "README.md", "methods", names_by_kind("docs/methods/"))
    files[ROOT / "mkdocs.yml"] = with_block(ROOT / "mkdocs.yml", "methods", navigation())
    parts = {
        "runs": {"settings": settings_table(), "recipes": recipe_table()},
        "sandbox": {"record": sandbox_record()},
        "interfaces": interface_blocks(),
        "hooks": hook_blocks(),
        "contract": rule_tables(),
        "geometry": {"scale": scale_table()},
    }
    pages = {docs / f"{name}.md": blocks for name, blocks in parts.items()}
    return files | figures() | {path: with_blocks(path, blocks) for path, blocks in pages.items()}


def leftovers(files: Iterable[Path]) -> list[Path]:
    """Pages and figures of methods that are gone."""
    return sorted({*PAGES.glob("*.md"), *FIGURES.glob("*.svg")} - set(files))


def main(arguments: Sequence[str]) -> int:
    wanted = outputs()
    changed = [path for path, text in wanted.items() if not path.is_file() or path.read_text(encoding="utf-8") != text]
    gone = leftovers(wanted)
    if "--check" in arguments:
        for path in (*changed, *gone):
            print(f"out of step: {path.relative_to(ROOT)}")
        return 1 if changed or gone else 0
    FIGURES.mkdir(parents=True, exist_ok=True)
    for path in changed:
        path.write_text(wanted[path], encoding="utf-8")
        print(f"written: {path.relative_to(ROOT)}")
    for path in gone:
        path.unlink()
        print(f"removed: {path.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
