"""The contract of methods as checks that authors can run on their own.

::

    from alignzoo.testing import check_method, contract

    @contract(CARD)                 # in a pytest file: one test per rule
    def test_contract(check):
        check()

    report = check_method("dpo")    # or without pytest
    assert report.ok

Importing this needs neither torch nor pytest; running a check needs torch.
"""

from alignzoo.testing.checks import RULES, check_method, checks_for, contract
from alignzoo.testing.outcomes import Check, ContractError, Outcome, Report, Rule, Skipped

__all__ = [
    "RULES",
    "Check",
    "ContractError",
    "Outcome",
    "Report",
    "Rule",
    "Skipped",
    "check_method",
    "checks_for",
    "contract",
]
