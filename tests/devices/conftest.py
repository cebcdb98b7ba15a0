"""The process that has another device, one for each worker of pytest."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import elsewhere
import pytest
from matrix import Matrix

There = Callable[..., Any]


@pytest.fixture(scope="session")
def there() -> Iterator[There]:
    """Calls a function of :mod:`walk` in that process."""
    with elsewhere.process() as process:
        yield lambda function, *given, **named: process.submit(function, *given, **named).result(timeout=300)


@pytest.fixture(scope="session")
def matrix(tmp_path_factory: pytest.TempPathFactory) -> Matrix:
    """The same on the host."""
    return Matrix(tmp_path_factory.mktemp("matrix"))
