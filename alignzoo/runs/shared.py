"""What one run of a process leaves for the next one, so that a sweep loads, tokenises and evaluates once.

    shared = Shared()
    for plan in plans:
        execute(plan, reporter=reporter, shared=shared)

Results are the same, bit for bit, as those of a process per run.
"""

from __future__ import annotations

from alignzoo.base.memo import Memo


class Shared(Memo):
    """Lives as long as a worker process; one for all of its runs."""
