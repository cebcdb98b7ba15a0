"""Where a method comes from and what its implementation was verified against."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


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


class Verified(Frozen):
    """A source the implementation is verified against, and the name of the test that does it."""

    against: str
    test: str
