"""Both methods keep alignzoo's contract."""

from __future__ import annotations

from collections.abc import Callable

from alignzoo.testing import contract

from alignzoo_example import gradient_centralization, probit_dpo


@contract(probit_dpo.CARD, gradient_centralization.CARD)
def test_contract(check: Callable[[], None]) -> None:
    check()
