"""Where a method comes from and what its implementation was verified against."""

from __future__ import annotations

import re
import unicodedata

from pydantic import BaseModel, ConfigDict

OTHERS = "others"
"""As the last author: there are further ones."""
JOURNALS = ("TMLR", "JMLR", "TACL", "Transactions", "Journal", "Nature", "Neural Computation", "Machine Learning")
"""How the venues start that are journals; BibTeX names those in another field."""
_TEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "–": "--",
    "—": "---",
    "²": "$^2$",
    "×": r"$\times$",
    "→": r"$\to$",
}


class Frozen(BaseModel):
    """A model whose values do not change and whose fields are all known."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Paper(Frozen):
    """The publication of a method.

    Attributes:
        authors: "Family, Given" each; "others" as the last one stands for further authors.
        published: the year; by default that of the arXiv number.
        venue: conference or journal; None for a preprint.
        url: where it can be read, if it has no arXiv number.
    """

    title: str
    arxiv: str | None = None
    authors: tuple[str, ...] = ()
    published: int | None = None
    venue: str | None = None
    url: str | None = None

    @property
    def year(self) -> int | None:
        if self.published is not None or self.arxiv is None:
            return self.published
        return 2000 + int(self.arxiv[:2])

    def __str__(self) -> str:
        return f"{self.title} (arXiv {self.arxiv})" if self.arxiv else self.title

    @property
    def link(self) -> str | None:
        """Where it can be read."""
        return f"https://arxiv.org/abs/{self.arxiv}" if self.arxiv else self.url

    def byline(self) -> str:
        """Its authors in a line: all of up to three, else the first ``et al.``; empty if none are known."""
        named = [author for author in self.authors if author != OTHERS]
        families = [author.partition(",")[0].strip() for author in named]
        if not families:
            return ""
        if len(families) > 3 or len(named) < len(self.authors):
            return f"{families[0]} et al."
        return families[0] if len(families) == 1 else f"{', '.join(families[:-1])} and {families[-1]}"

    def key(self, name: str) -> str:
        """A BibTeX key for the paper of the method ``name``: ``rafailov2023dpo``; ``dpo2023`` without authors."""
        year = str(self.year or "")
        family = self.authors[0].partition(",")[0] if self.authors else ""
        return _plain(family) + year + _plain(name) if _plain(family) else _plain(name) + year

    def bibtex(self, key: str) -> str:
        """The BibTeX entry under a key, in UTF-8; TeX's own characters are escaped."""
        venue_year = re.search(r"\b(\d{4})$", self.venue or "")
        journal = self.venue is not None and self.venue.startswith(JOURNALS)
        kind = "misc" if self.venue is None else "article" if journal else "inproceedings"
        fields = {
            "author": " and ".join(_author(author) for author in self.authors),
            "title": f"{{{tex(self.title)}}}",  # in braces of its own: styles leave the capitals as they are
            "journal" if journal else "booktitle": tex(self.venue or ""),
            "year": venue_year[1] if venue_year else str(self.year or ""),
            "eprint": self.arxiv or "",
            "archiveprefix": "arXiv" if self.arxiv else "",
            "url": (self.link or "").replace("{", "%7B").replace("}", "%7D"),
        }
        return bibtex_entry(kind, key, fields)


def bibtex_entry(kind: str, key: str, fields: dict[str, str]) -> str:
    """An entry of a BibTeX file, of the fields that are not empty; the values are TeX."""
    lines = [f"  {name:<13} = {{{value}}}," for name, value in fields.items() if value]
    return "\n".join([f"@{kind}{{{key},", *lines, "}"])


def tex(text: str) -> str:
    """Text as TeX shows it: what has a meaning there is escaped."""
    return "".join(_tex_of(character) for character in text)


def _tex_of(character: str) -> str:
    name = unicodedata.name(character, "")
    if name.startswith("GREEK ") and " LETTER " in name and "WITH" not in name:
        letter = name.rpartition(" ")[2].lower().replace("lamda", "lambda")
        return f"$\\{letter.capitalize() if 'CAPITAL' in name else letter}$"
    return _TEX.get(character, character)


def _author(name: str) -> str:
    """An author; ``and`` inside a name, as of a consortium, is no separator."""
    return f"{{{tex(name)}}}" if " and " in name else tex(name)


def _plain(text: str) -> str:
    """The letters and digits of a text in ASCII, for a key."""
    decomposed = unicodedata.normalize("NFKD", text.casefold())
    return re.sub(r"[^a-z0-9]", "", decomposed)


class Verified(Frozen):
    """A source the implementation is verified against, and the name of the test that does it."""

    against: str
    test: str
