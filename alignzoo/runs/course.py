"""The stages of a run: introduction, session, evaluation before, training, evaluation after, model, result."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignzoo.base.disk import check_there, remedy
from alignzoo.base.files import whole
from alignzoo.base.heap import collecting_later
from alignzoo.contract.result import RunResult
from alignzoo.data.shapes import NOUNS
from alignzoo.distributed.launch import take_over_sharding
from alignzoo.errors import AlignzooError, DamagedError, Interrupted
from alignzoo.evaluate.answers import Answers, answers_of
from alignzoo.model.precision import launched_for
from alignzoo.observers import Observers
from alignzoo.plan.plan import Plan
from alignzoo.plan.planfile import plan_to_dict
from alignzoo.plan.started import plain_values, plan_as_started
from alignzoo.report import Reporter
from alignzoo.runs.examples import Examples
from alignzoo.runs.folder import RunFolder
from alignzoo.runs.introduction import introduction
from alignzoo.runs.memory import PeakMemory
from alignzoo.runs.outcome import read_before, report_outcome, write_evaluation
from alignzoo.runs.precheck import check_start
from alignzoo.runs.shared import Shared
from alignzoo.runs.watchers import check_trackers, observers_of
from alignzoo.train.trackers import finish_trackers

if TYPE_CHECKING:
    from alignzoo.session.session import Session
    from alignzoo.train.loop import Loop

Figures = dict[str, float]


class Course:
    """One run, from its plan to its result.

    Args:
        resumed: the folder of the run to resume; None for a new run.
        shared: what earlier runs of this process have left.
        alone: the process is for this run only.
    """

    def __init__(
        self, plan: Plan, report: Reporter, resumed: Path | None, shared: Shared | None = None, alone: bool = False
    ) -> None:
        take_over_sharding()
        self.began = time.perf_counter()
        self.alone = alone
        self.report = report
        settings = plan.settings
        check_trackers(settings.track)
        self.folder = RunFolder(plan, report, resumed)
        for line in introduction(plan, self.folder.path):  # before the imports that take seconds
            report.note(line)
        tracked = {"log_with": list(settings.track), "project_dir": str(self.folder.path)} if settings.track else {}
        with collecting_later():
            plan, self.accelerator = launched_for(plan, report, **tracked)
        self.memory = PeakMemory()
        self.folder.check_free(self.accelerator)
        self.observers = Observers(observers_of(settings.observe) if self.main else {}, report)
        self.answers = answers_of(plan)
        self.plan = plan
        self.shared = shared or Shared(limit=0)  # a run on its own has nobody to leave anything to

    @property
    def main(self) -> bool:
        return bool(self.accelerator.is_main_process)

    @property
    def said(self) -> dict[tuple[str, str], str]:
        """Answers of the last evaluation, as far as its evaluator records them."""
        return {} if self.answers is None else dict(self.answers.said)

    def go(self) -> RunResult:
        """Run it to completion.

        Raises:
            AlignzooError: it cannot start, or was stopped; the message says how to resume it.
        """
        try:
            result = self._go()
        except BaseException as error:
            self.observers.tell("end", None, error)
            finish_trackers(self.accelerator)
            if isinstance(error, Interrupted):
                self.accelerator.wait_for_everyone()  # launchers end the other ranks as soon as one has ended
            problem = self.folder.explained(error)
            self.folder.undo()
            if problem is None:
                raise
            raise problem from error
        finally:
            self.folder.release()
        self.observers.tell("end", result, None)
        return result

    def _go(self) -> RunResult:
        from accelerate.utils import set_seed

        set_seed(self.plan.settings.seed)  # a run starts from the same random state, whatever ran before it
        session, loop = self.prepare()
        self.observers.tell("start", self.folder.path, plan_to_dict(session.plan), loop.steps)
        examples = Examples.of_last(loop.engine.objective, loop.steps, session.settings.batch_size)
        loop.seen = examples.see
        before = self._before(session, loop)
        examples.before |= self.said
        self.folder.lasting = True
        loop.run()
        after = self._figures(session, loop)
        if self.main:
            examples.write(self.folder.path, session.parts, self.said)
        with loop.controller.for_evaluation():
            weights = self._save_model(session, loop)
        for tracker in self.accelerator.trackers:  # end_training() would also end the group of the ranks
            tracker.finish()
        return self._finish(session, loop, before, after, weights)

    def prepare(self) -> tuple[Session, Loop]:
        """Everything before the first step; invalid runs fail here, cheap checks first."""
        with collecting_later(freeze=self.alone):
            import datasets  # noqa: F401

            from alignzoo.data.parts import warn_of_little
            from alignzoo.model.adapters import how_to_load
            from alignzoo.model.positions import warn_beyond_positions
            from alignzoo.runs.generated import Generated
            from alignzoo.session.session import Session
            from alignzoo.train.begin import begin

        check_start(self.plan, self.accelerator.num_processes)
        session = Session(self.plan, self.accelerator, self.report, memo=self.shared)
        generated = Generated(session, self.folder.path, self.report)
        generated.prepare()
        _ = session.plan, session.tokenizer
        self._take_folder(session)
        warn_of_little(session.parts, session.settings, self.report)
        warn_beyond_positions(session.config, session.parts.longest(), self.report)
        if session.source.gguf and hasattr(session.policy, "peft_config"):
            self.report.note(how_to_load(session.source, self.folder.path / "model"))
        _ = session.policy
        if self.main:
            self._write_facts(session)
        self.accelerator.wait_for_everyone()
        loop = begin(
            session,
            self.folder.path,
            resuming=self.folder.resuming,
            observers=self.observers,
            planned=plain_values(plan_as_started(self.folder.path)) if self.main else None,
        )
        if generated:
            loop.generated = partial(self._on_main, loop, lambda model: generated.figures(model, loop.done))
        return session, loop

    def _take_folder(self, session: Session) -> None:
        self.folder.take(self.accelerator, session.plan)
        session.folder = self.folder.path if self.main else None
        if session.settings.track:
            where = self.accelerator.project_configuration
            where.project_dir = where.logging_dir = str(self.folder.path)

    def _write_facts(self, session: Session) -> None:
        """Report how the data was read and the hardware of the run."""
        from alignzoo.runs.environment import describe_environment

        parts = session.parts
        facts: dict[str, Any] = {name: summary.to_dict() for name, summary in parts.summaries.items()}
        if parts.selection:
            facts["selection"] = list(parts.selection)
        facts["training"] = {"rows": len(parts.train), "steps": session.steps}
        self.folder.write_once("data.json", facts)
        environment = describe_environment(self.accelerator.num_processes, str(self.accelerator.device))
        self.folder.write_once("env.json", environment)

    def _before(self, session: Session, loop: Loop) -> Figures:
        """The figures before training: computed now, or left by an interrupted run."""
        folder = self.folder.path
        try:
            before = read_before(folder) if self.folder.resuming else None
        except DamagedError as error:
            fate = "lost" if loop.done > 0 else "recomputed"
            self.report.warn(f"{error.message}; the figures before training are {fate}")
            before = None
        if before is not None:
            return before
        if loop.done > 0:
            return {}
        before = self._figures(session, loop)
        if self.main:
            write_evaluation(folder, before=before)
        return before

    def _figures(self, session: Session, loop: Loop) -> Figures:
        """Figures at the current weights: on held-out rows, of suites, and of the data's evaluator if there is one."""
        figures = loop.evaluate()
        answers = self.answers
        if answers is not None:
            with loop.controller.for_evaluation():
                figures |= self._on_main(loop, lambda model: self._answers(answers, model, session, loop.done))
        self.accelerator.wait_for_everyone()
        self.observers.tell("evaluation", loop.done, figures)
        return figures

    def _answers(self, answers: Answers, model: Any, session: Session, step: int) -> Figures:
        """The evaluator's figures; before training, those of an earlier run of this process with the same model."""
        from alignzoo.data.digests import tokenizer_digest
        from alignzoo.model.identity import outputs_key

        def compute() -> tuple[Figures, dict[tuple[str, str], str]]:
            return answers.figures(model, session.tokenizer, self.report), dict(answers.said)

        key = outputs_key(model) if step == 0 else None
        if key is None:
            return compute()[0]
        asked = (type(answers.evaluator), answers.validation, answers.judge)
        known = (key, *asked, tokenizer_digest(session.tokenizer))
        figures, said = self.shared.get("answers before training", known, compute)
        answers.said.update(said)
        return dict(figures)

    def _on_main(self, loop: Loop, figures: Callable[[Any], Figures]) -> Figures:
        """Figures that the main process computes from the unwrapped model with all its weights."""
        from alignzoo.distributed.sharding import gathered

        model = self.accelerator.unwrap_model(loop.engine.model)
        with gathered(model):
            found = figures(model) if self.main else {}
            self.accelerator.wait_for_everyone()
        return found

    def _save_model(self, session: Session, loop: Loop) -> str:
        """Write ``model/``; returns the hash of its weights, on all ranks."""
        from alignzoo.distributed.ranks import on_all_ranks
        from alignzoo.distributed.sharding import is_shard
        from alignzoo.model.weights import fingerprint

        model = self.accelerator.unwrap_model(loop.engine.model)
        if session.settings.save_model:
            on_all_ranks(self.accelerator, partial(self._write_model, model, session.tokenizer))
        return fingerprint(model) if is_shard(model) else on_all_ranks(self.accelerator, lambda: fingerprint(model))[0]

    def _write_model(self, model: Any, tokenizer: Any) -> None:
        from alignzoo.distributed.sharding import is_shard
        from alignzoo.model.saved import save_sharded
        from alignzoo.model.weights import save_model

        target = self.folder.path / "model"
        try:
            with whole(target) if self.main else nullcontext() as path:
                if is_shard(model):
                    save_sharded(model, tokenizer, path)
                elif path is not None:
                    save_model(model, tokenizer, path, model.state_dict())
        except Exception as error:
            check_there(self.folder.path)
            raise AlignzooError(
                f"could not save the model in {target}: {error}",
                hint=f"the last checkpoint is intact; {remedy(error)} and finish with: {self.folder.resume_words()}",
            ) from error

    def _finish(self, session: Session, loop: Loop, before: Figures, after: Figures, weights: str) -> RunResult:
        parts, folder = session.parts, self.folder.path
        result = RunResult(
            folder=str(folder),
            sentence=session.plan.sentence(),
            status="finished",
            steps=loop.steps,
            tokens=loop.tokens,
            seconds=round(time.perf_counter() - self.began, 2),
            pairs={
                "train": len(parts.train),
                "held_out": len(parts.held_out) if parts.held_out is not None else 0,
                "probe": len(parts.probe_train) if parts.probe_train is not None else 0,
            },
            weights=weights,
            before=before,
            after=after,
            train_identity=parts.train_identity,
            peak_memory=self.memory.peak(),
        )
        saved = session.settings.save_model
        if self.main:
            write_evaluation(folder, before=before, after=after)
            result.save()
            if not saved:
                shutil.rmtree(folder / "checkpoints", ignore_errors=True)
        report_outcome(before, after, self.report, self.answers, noun=NOUNS[parts.shape])
        where = f"the model is in {folder / 'model'}" if saved else "the model was not saved"
        self.report.note(f"{loop.steps} steps in {result.seconds:.1f} s; {where}")
        return result
