"""Work shared among the ranks of a run, and failures propagated to all of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from alignzoo.errors import AlignzooError

if TYPE_CHECKING:
    from accelerate import Accelerator

Result = TypeVar("Result")


def on_all_ranks(accelerator: Accelerator, work: Callable[[], Result]) -> list[Result]:
    """The results of ``work`` on all ranks, in rank order; called on every rank.

    Raises:
        AlignzooError: raised by the work of one rank; all ranks raise it, so that none waits for a dead one.
    """
    if accelerator.num_processes == 1:
        return [work()]
    from accelerate.utils import gather_object

    mine: list[Result] = []
    refusal: AlignzooError | None = None
    try:
        mine.append(work())
    except AlignzooError as error:
        refusal = error
    told: list[tuple[list[Result], AlignzooError | None]] = gather_object([(mine, refusal)])
    refusals = [error for _, error in told if error is not None]
    if refusals:
        raise refusal or refusals[0]
    return [result for given, _ in told for result in given]
