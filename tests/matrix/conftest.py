"""The numbers of combinations that trained and that were refused, at the end of the session."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from matrix import Matrix

Count = Any


@pytest.fixture(scope="session")
def matrix(tmp_path_factory: pytest.TempPathFactory) -> Matrix:
    return Matrix(tmp_path_factory.mktemp("matrix"))


@pytest.fixture
def count(record_property: Any) -> Count:
    """Counts outcomes for the summary."""
    found: Counter[str] = Counter()
    yield found
    for name in ("trained", "refused"):
        record_property(f"combinations {name}", found[name])


def pytest_terminal_summary(terminalreporter: Any) -> None:
    found: Counter[str] = Counter()
    ends = [r for reports in terminalreporter.stats.values() for r in reports if getattr(r, "when", "") == "teardown"]
    for report in ends:
        for name, value in report.user_properties:
            if name.startswith("combinations "):
                found[name.removeprefix("combinations ")] += value
    if found:
        terminalreporter.write_line(f"combinations: {found['trained']} trained, {found['refused']} refused")
