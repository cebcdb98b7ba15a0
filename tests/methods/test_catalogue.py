"""The cards of alignzoo's own methods make a catalogue: families, verification, curves, citations."""

from __future__ import annotations

import functools
import itertools
import math
import re
from pathlib import Path

import pytest

from alignzoo.cli.cite import by_paper, entries_of
from alignzoo.cli.combine import example, refused
from alignzoo.cli.curves import TOKENS, Curve, Panel, panels_of
from alignzoo.cli.drawing import drawn, save_plot, svg
from alignzoo.cli.ls import in_order
from alignzoo.cli.search import family_of
from alignzoo.contract.card import Card, Composition
from alignzoo.contract.kinds import KINDS
from alignzoo.contract.paper import Paper
from alignzoo.errors import UsageError
from alignzoo.plugin.declared import check_defaults
from alignzoo.plugin.discover import OWN_DISTRIBUTION
from alignzoo.plugin.registry import registry

TESTS = Path(__file__).resolve().parents[1]
OWN = [entry for entry in registry().entries() if entry[0].distribution == OWN_DISTRIBUTION]
CARDS = [method for _, method in OWN if isinstance(method, Card)]
COMPOSITIONS = [method for _, method in OWN if isinstance(method, Composition)]


def _id(method: object) -> str:
    return f"{method.kind}-{method.name}" if isinstance(method, (Card, Composition)) else ""


@functools.cache
def _test_functions() -> frozenset[str]:
    files = [path.read_text(encoding="utf-8") for path in TESTS.rglob("test_*.py")]
    return frozenset(name for text in files for name in re.findall(r"^ *def (test_\w+)", text, re.M))


@pytest.mark.parametrize("card", CARDS, ids=_id)
def test_a_card_is_ready_for_the_catalogue(card: Card) -> None:
    assert card.family, "every own method stands under a heading"
    assert any(letter.isupper() for letter in card.summary.split()[0]), "a capital, or a name such as f-DPO"
    assert len(card.summary) <= 72
    assert not card.summary.endswith(".")
    assert card.experimental or card.verified, "neither verified nor marked as experimental"
    for source in card.verified:
        assert source.test in _test_functions(), f"no test is called {source.test}"
    check_defaults(card)  # skipped for own plugins when they load


@pytest.mark.parametrize("method", COMPOSITIONS, ids=_id)
def test_a_composition_is_of_verified_parts_and_has_a_family(method: Composition) -> None:
    entry = (registry().plugin_of(method), method)
    assert family_of(entry)
    assert len(method.summary) <= 72
    for kind, names in method.parts.items():
        for name in names:
            part = registry().find(kind, name)
            assert isinstance(part, Card)
            assert part.verified or part.experimental or method.experimental


def test_names_and_aliases_are_of_one_method_each() -> None:
    for kind in KINDS:
        names = [name for _, method in OWN if method.kind == kind for name in (method.name, *method.aliases)]
        assert sorted(names) == sorted(set(names))


def test_a_family_stands_in_one_place() -> None:
    headings = [(method.kind, family_of((plugin, method))) for plugin, method in in_order(OWN)]
    blocks = [heading for heading, _ in itertools.groupby(headings)]
    assert len(blocks) == len(set(blocks))


@pytest.mark.parametrize("card", [card for card in CARDS if card.kind in ("loss", "robust")], ids=_id)
def test_losses_and_wrappers_have_finite_curves(card: Card) -> None:
    panels = panels_of(card)
    if card.kind == "loss":
        assert [panel.title for panel in panels] == ["loss", "gradient of the loss"]
    for panel in panels:
        for curve in panel.curves:
            assert all(map(math.isfinite, curve.y))
            assert list(curve.x) == sorted(curve.x)
    for width in (70, 84, 100):
        assert max(map(len, drawn(panels, width)), default=0) <= width
    if panels:
        assert len(svg(panels, card.name)) <= 20_000
        assert svg(panels, card.name) == svg(panels, card.name)


def _panels(kind: str, name: str) -> tuple[Panel, ...]:
    card = registry().find(kind, f"alignzoo:{name}")
    assert isinstance(card, Card)
    return panels_of(card)


def test_the_curve_of_dpo_is_that_of_its_formula() -> None:
    value, slope = (panel.curves[0] for panel in _panels("loss", "dpo"))
    for x, y, gradient in zip(value.x, value.y, slope.y, strict=True):
        assert y == pytest.approx(math.log1p(math.exp(-0.1 * x)), rel=1e-9)
        assert gradient == pytest.approx(-0.1 / (1 + math.exp(0.1 * x)), rel=1e-9)


def test_the_curve_of_a_loss_per_token_moves_by_the_mean() -> None:
    simpo = _panels("loss", "simpo")[0].curves[0]
    at_0 = simpo.y[len(simpo.y) // 2]
    assert at_0 == pytest.approx(math.log1p(math.exp(1.0)) - 1.0 + 0.0, abs=0.7)  # γ is 0.5·β: −log σ(−γ)
    x = simpo.x[-1]
    assert simpo.y[-1] == pytest.approx(math.log1p(math.exp(-(2.0 * x / TOKENS - 0.5))), rel=1e-2)


def test_the_curves_of_kto_mirror_each_other() -> None:
    desirable, undesirable = _panels("loss", "kto")[0].curves
    assert desirable.y == pytest.approx([1 - y for y in undesirable.y])


def test_the_weights_of_an_aggregating_wrapper_add_up_to_the_step() -> None:
    [panel] = _panels("robust", "drdpo")
    [curve] = panel.curves
    assert sum(curve.y) == pytest.approx(len(curve.y))
    assert list(curve.y) == sorted(curve.y, reverse=True)


def test_a_flat_curve_is_drawn() -> None:
    flat = Panel("flat", "x", (Curve("", (-1.0, 0.0, 1.0), (2.0, 2.0, 2.0)),))
    assert "⠉" in "".join(drawn([flat], 40)) or "⠒" in "".join(drawn([flat], 40)) or "⠤" in "".join(drawn([flat], 40))
    assert "nan" not in svg([flat], "flat")


def test_a_plot_is_written(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    for ending in ("png", "svg"):
        save_plot(_panels("loss", "dpo"), tmp_path / f"dpo.{ending}", "dpo")
        assert (tmp_path / f"dpo.{ending}").stat().st_size > 1000
    again = tmp_path / "again.svg"
    save_plot(_panels("loss", "dpo"), again, "dpo")
    assert again.read_bytes() == (tmp_path / "dpo.svg").read_bytes()
    with pytest.raises(UsageError, match=r"neither .png nor .svg"):
        save_plot(_panels("loss", "dpo"), tmp_path / "dpo.pdf", "dpo")


@pytest.mark.parametrize("card", CARDS, ids=_id)
def test_refusals_are_mutual(card: Card) -> None:
    """Against a few, so that it stays quick; the whole table is that of ``compat``."""
    for kind, names in refused(card).items():
        for name in names[:2]:
            other = registry().find(kind, f"alignzoo:{name}")
            assert isinstance(other, Card)
            assert card.name in refused(other)[card.kind]


def test_an_example_names_what_it_needs_beside() -> None:
    dpo, hf = registry().find("loss", "dpo"), registry().find("reward", "hf")
    assert example(dpo) == "alignzoo run --loss dpo --loss.beta 0.1"
    assert re.match(r"alignzoo run --(loss|robust) [\w-]+ --reward hf --reward.model MODEL", example(hf))


PAPER = Paper(title="x", arxiv="2305.18290", authors=("Rafailov, Rafael", "Sharma, Archit", "others"))


def test_keys_are_first_author_year_and_name() -> None:
    assert PAPER.key("dpo") == "rafailov2023dpo"
    assert PAPER.key("pl-dpo") == "rafailov2023pldpo"
    assert Paper(title="x", authors=("Müller-Ö, J.",), published=1999).key("a-b") == "mullero1999ab"
    assert Paper(title="x", arxiv="2305.18290").key("dpo") == "dpo2023"
    assert Paper(title="x").key("dpo") == "dpo"


def test_bibtex_escapes_what_tex_gives_a_meaning() -> None:
    paper = Paper(title=r"50% of {a_b} & β² ~ \x – $5 #1 ^", authors=("Team A and B", "others"), published=2024)
    [title] = re.findall(r"title\s+= \{\{(.*)\}\},", paper.bibtex("k"))
    assert title == (
        r"50\% of \{a\_b\} \& $\beta$$^2$ \textasciitilde{} \textbackslash{}x -- \$5 \#1 \textasciicircum{}"
    )
    assert "author        = {{Team A and B} and others}," in paper.bibtex("k")


@pytest.mark.parametrize(
    ("venue", "kind", "field"),
    [(None, "misc", None), ("NeurIPS 2023", "inproceedings", "booktitle"), ("TMLR 2024", "article", "journal")],
)
def test_bibtex_says_where_it_was_published(venue: str | None, kind: str, field: str | None) -> None:
    text = PAPER.model_copy(update={"venue": venue}).bibtex("k")
    assert text.startswith(f"@{kind}{{k,\n")
    assert "eprint        = {2305.18290}" in text
    assert "archiveprefix = {arXiv}" in text
    assert "url           = {https://arxiv.org/abs/2305.18290}" in text
    year = venue.split()[-1] if venue else "2023"
    assert re.search(rf"year\s+= \{{{year}\}}", text)
    if field:
        assert re.search(rf"{field}\s+= \{{{venue}\}}", text)


@pytest.mark.parametrize("entry", [entry for entry in OWN if entry[1].paper], ids=lambda entry: _id(entry[1]))
def test_every_paper_makes_an_entry_with_balanced_braces(entry: tuple[object, Card | Composition]) -> None:
    paper = entry[1].paper
    assert paper is not None
    text = paper.bibtex(paper.key(entry[1].name))
    plain = re.sub(r"\\[{}]", "", text)
    assert plain.count("{") == plain.count("}")
    assert paper.year is not None
    assert re.fullmatch(r"@\w+\{[a-z0-9]+,\n(  \w+ += \{.+\},\n)+\}", text)


def test_cards_agree_about_a_paper_and_know_who_wrote_it() -> None:
    papers = [entry[1].paper for entry in OWN if entry[1].paper]
    for paper in papers:
        assert paper.authors, paper.title
        assert paper.authors[0] != "others", paper.title
    for one, other in itertools.combinations(papers, 2):
        if one.title == other.title or (one.arxiv and one.arxiv == other.arxiv):
            assert one == other


def test_a_paper_of_several_methods_is_cited_once() -> None:
    cited = by_paper([*entries_of("dpo"), *entries_of("pl-dpo")])
    assert [len(of_it) for _, _, of_it in cited] == [2]
    keys = [key for key, _, _ in by_paper(OWN)]
    assert len(keys) == len(set(keys))


def test_a_composition_is_cited_with_its_parts() -> None:
    names = {(method.kind, method.name) for _, method in entries_of("shapo-reward")}
    assert {("geometry", "shapo-reward"), ("geometry", "shapo-token"), ("robust", "soft-label")} == names
