"""The life cycle of a run folder: named, claimed with the plan in it, removed if the start fails, released."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignzoo.base.disk import file_problem, stating
from alignzoo.base.files import write_json
from alignzoo.distributed.ranks import on_all_ranks
from alignzoo.errors import AlignzooError, Interrupted
from alignzoo.plan.plan import Plan
from alignzoo.plan.planfile import PLAN_FILE, write_plan
from alignzoo.plugin.registry import resume_words
from alignzoo.report import Reporter
from alignzoo.runs.claim import Claim, check_free, claim_default, claim_new, claim_run

if TYPE_CHECKING:
    from accelerate import Accelerator

RUN_FILES = (
    PLAN_FILE,
    "data.json",
    "env.json",
    "evaluation.json",
    "examples.jsonl",
    "label_noise.jsonl",
    "metrics.jsonl",
    "result.json",
    "samples.jsonl",
    "selection.jsonl",
    "soft_labels.json",
)
RUN_FOLDERS = ("alignzoo", "checkpoints", "geometry", "model", "probe")
"""What a run writes in its folder; ``alignzoo`` is TensorBoard's."""


def default_folder(plan: Plan) -> Path:
    """The folder of a run without ``--out``: from its methods and the time."""
    names = "-".join(method.card.name for method in plan.all_methods)
    return Path(f"runs/{names}-{datetime.now():%Y%m%d-%H%M%S}")


class RunFolder:
    """The folder of one run, the same on all ranks; the first one claims it and writes there.

    Args:
        resumed: the folder of the run to resume; None for a new one.

    Attributes:
        path: where it is, or will be until :meth:`take` has said so.
        lasting: whether a failure leaves it there: a new one stays once training has begun.
    """

    def __init__(self, plan: Plan, report: Reporter, resumed: Path | None) -> None:
        self._plan = plan
        self._named = plan.settings.out is not None
        self._report = report
        self._claim: Claim | None = None
        self._taken = False
        self.resuming = resumed is not None
        self.lasting = self.resuming
        self.path = resumed or (Path(plan.settings.out) if plan.settings.out else default_folder(plan))

    def check_free(self, accelerator: Accelerator) -> None:
        """Refuse a folder that was named and is not free, before anything is loaded.

        Raises:
            AlignzooError: see :func:`~alignzoo.runs.claim.check_free`.
        """
        if self._named and not self.resuming:
            on_all_ranks(accelerator, lambda: check_free(self.path) if accelerator.is_main_process else None)

    def take(self, accelerator: Accelerator, plan: Plan) -> None:
        """Claim it, on the first rank; a new one gets the plan, so that a run killed from here on can be resumed.

        Raises:
            AlignzooError: another process uses it, it is not free, or it cannot be written.
        """
        first = accelerator.is_main_process
        introduced, self.path = (
            self.path,
            on_all_ranks(accelerator, lambda: self._take(plan) if first else self.path)[0],
        )
        if self.path != introduced:
            self._report.note(f"another run uses that folder; using {self.path}")
        self._taken = True

    def _take(self, plan: Plan) -> Path:
        if self.resuming:
            self._claim = claim_run(self.path, self._report)
            return self.path
        self._claim = (claim_new if self._named else claim_default)(self.path, self._report)
        with stating(self._claim.folder, "make it writable, or choose another place with --out"):
            write_plan(plan, self._claim.folder)
        return self._claim.folder

    def write_once(self, name: str, content: Any) -> None:
        """Write a fact of the run's start, which a resume does not change."""
        if not (self.path / name).is_file():
            write_json(self.path / name, content)

    def explained(self, error: BaseException) -> AlignzooError | None:
        """What to say of a failure that is not the program's, and how the run is continued; None for others."""
        resume = f"resume with: {self.resume_words()}"
        if isinstance(error, KeyboardInterrupt) and self.lasting:
            return Interrupted("interrupted", hint=resume)
        if not isinstance(error, Exception) or not self._taken:
            return None
        return file_problem(error, self.path, resume if self.lasting else "run it again")

    def undo(self) -> None:
        """Remove what a failed start has written."""
        if self._claim is not None and not self.lasting:
            self._claim.undo((*RUN_FILES, *RUN_FOLDERS))

    def release(self) -> None:
        """Release it for others."""
        if self._claim is not None:
            self._claim.release()

    def resume_words(self) -> str:
        """The command that continues the run."""
        return resume_words(self.path, trusting=self._plan.settings.trust_remote_code)
