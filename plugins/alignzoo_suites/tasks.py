"""What the task files of suites name for lm-eval: the metric from the wording of a response."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from alignzoo.evaluate.suites.lm_task import outcome


def refusal(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """``attack_success`` or ``over_refusal`` of one response, by the rule of the judge ``refusal``."""
    from alignzoo_judges.refusal import refuses

    return outcome(doc, refuses(results[0]))
