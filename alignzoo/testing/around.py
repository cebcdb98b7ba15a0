"""The rule of what wrappers go around."""

from __future__ import annotations

from alignzoo.contract.loss import Reads
from alignzoo.contract.responses import POLICY, ResponseBatch
from alignzoo.contract.robust import RobustCard
from alignzoo.lazy import F, torch
from alignzoo.testing.arithmetic import check_vector
from alignzoo.testing.outcomes import Rule, Violation
from alignzoo.testing.sample import sample_of
from alignzoo.testing.subject import Subject


def _around(subject: Subject) -> None:
    """The kit's own loss of each kind of value: minus the log-prob of a response, or of the first of a list."""
    card = subject.card
    assert isinstance(card, RobustCard)
    reads: tuple[Reads, ...] = ("responses", "lists", "chosen")
    for configuration in subject.configurations:
        for what in reads:
            if what not in card.around or (what == "chosen" and "swap" in subject.needs(configuration)):
                continue
            wrapper, batch = subject.build(configuration), sample_of(what, subject.needs(configuration) | {"reference"})
            try:
                values = wrapper.per_pair(_bare, batch)
            except (AttributeError, TypeError) as error:
                raise Violation(
                    expected=f"per_pair() to work around a loss that reads {what}, since the card says so",
                    found=f"{type(error).__name__}: {error}",
                    remedy="read no field that only pairs have, or declare around={'pairs'}",
                ) from error
            check_vector(values, torch.zeros(8, dtype=torch.float64), f"per_pair() of {what} {configuration}")


def _bare(responses: ResponseBatch) -> torch.Tensor:
    """One value for each prompt of a sample."""
    own = responses.of_role(POLICY)
    values = own.logps.new_zeros(int(own.prompt[-1]) + 1)
    signs = 1.0 if own.labels is None else own.labels.to(values.dtype)
    return F.softplus(values.index_add(0, own.prompt, -signs * own.logps))


AROUND = Rule(
    "around", "per_pair() gives one value for each, whatever the losses read that the card goes around", _around
)
