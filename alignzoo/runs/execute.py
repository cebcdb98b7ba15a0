"""A whole run: plan -> data -> model -> training -> run folder. ``run`` is the Python API, ``execute`` the command's.

from alignzoo import run
result = run({"loss": "dpo", "geometry": "shapo-token", "max-steps": 20})
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignzoo.base.files import check_links, whole
from alignzoo.base.stop import interruptible
from alignzoo.distributed.launch import distributed_backend, take_over_sharding
from alignzoo.distributed.ranks import on_all_ranks
from alignzoo.errors import AlignzooError, BrokenPluginError, DamagedError, Interrupted, UsageError, contained
from alignzoo.evaluate.answers import Answers, answers_of
from alignzoo.observers import Observers
from alignzoo.plan.plan import Plan
from alignzoo.plan.planfile import changed_plugins, plan_to_dict, read_plan, write_plan
from alignzoo.plan.recipe import Layer, flatten, read_recipe
from alignzoo.plan.resolve import require, resolve
from alignzoo.plan.started import plain_values, plan_as_started
from alignzoo.plugin.build import import_target
from alignzoo.plugin.faults import describe_error
from alignzoo.plugin.registry import registry, resume_words
from alignzoo.report import Reporter
from alignzoo.runs.folder import (
    RUN_FILES,
    RUN_FOLDERS,
    Claim,
    check_free,
    check_there,
    claim_default,
    claim_new,
    claim_run,
    default_folder,
    file_problem,
    remedy,
    stating,
    write_once,
)
from alignzoo.runs.introduction import introduction
from alignzoo.runs.outcome import RunResult, read_before, report_outcome, write_evaluation

if TYPE_CHECKING:
    from alignzoo.data.parts import Parts
    from alignzoo.train.loop import Loop


def run(recipe: str | Path | Mapping[str, Any] | Plan | None = None, *, report: Reporter | None = None) -> RunResult:
    """Run a recipe from Python: its name, its file, its words as a mapping, or a resolved plan.

    Raises:
        AlignzooError: and its kinds, as the command line's exit codes.
    """
    if isinstance(recipe, Plan):
        plan = recipe
    else:
        layers: list[Layer] = []
        if isinstance(recipe, Mapping):
            layers.append(Layer("python", flatten(dict(recipe), "the recipe")))
        elif recipe is not None:
            layers.append(read_recipe(str(recipe)))
        plan = require(resolve(layers, distributed=distributed_backend()))
    return execute(plan, reporter=report or Reporter())


def execute(plan: Plan, *, reporter: Reporter) -> RunResult:
    """Train by a plan into a new run folder."""
    with interruptible():
        return _Run(plan, reporter, None).go()


def resume(folder: str | Path, *, reporter: Reporter, trust_remote_code: bool = False) -> RunResult:
    """Continue a run from its last whole checkpoint; its plan stays as it is.

    Args:
        trust_remote_code: to be stated again for a run that was started with it.

    Raises:
        AlignzooError: not a run folder, a part of it leads elsewhere, or the model or data it started from have
            changed.
    """
    path = Path(folder)
    plan = read_plan(path, trust_remote_code=trust_remote_code)
    finished = _finished(path, reporter)
    if finished is not None:
        reporter.note(f"{path} has finished all its {finished.steps} steps; nothing to do")
        return finished
    check_links(path, RUN_FILES)
    for remark in changed_plugins(path, plan):
        reporter.warn(remark)
    with interruptible():
        return _Run(plan, reporter, path).go()


def _finished(folder: Path, reporter: Reporter) -> RunResult | None:
    """The result of a run that has finished; one that is damaged is made again from the last checkpoint."""
    try:
        return RunResult.load(folder)
    except DamagedError as error:
        reporter.warn(f"{error.message}; finishing the run again")
        return None


class _Run:
    def __init__(self, plan: Plan, report: Reporter, folder: Path | None) -> None:
        take_over_sharding()
        self.began = time.perf_counter()
        self.plan, self.settings, self.report = plan, plan.settings, report
        self.resuming = folder is not None
        _check_trackers(self.settings.track)
        self.folder = folder or (Path(self.settings.out) if self.settings.out else default_folder(plan))
        self.claim: Claim | None = None
        self.claimed = False
        self.lasting = self.resuming  # a new folder stays once training has begun; before, a failure leaves nothing
        for line in introduction(plan, self.folder):  # before the imports that take seconds
            report.note(line)
        from accelerate import Accelerator

        precision = "bf16" if self.settings.precision == "bf16" else "no"
        _forget_other_precision(precision)
        self.accelerator = Accelerator(
            cpu=_ranks_on_cpu(),
            gradient_accumulation_steps=1,
            mixed_precision=precision,
            log_with=list(self.settings.track) or None,
            project_dir=str(self.folder) if self.settings.track else None,
        )
        if self.settings.out and not self.resuming:
            on_all_ranks(self.accelerator, lambda: check_free(self.folder) if self.main else None)
        self.observers = Observers(self._observers() if self.main else {}, report)
        self.answers = answers_of(self.settings)

    def _observers(self) -> dict[str, Any]:
        """The observers that were asked for, built.

        Raises:
            BrokenPluginError: one of them cannot be built: it was asked for, so the run does not begin without it.
        """
        built = {}
        for name in self.settings.observe:
            card = registry().find_extension("observer", name)
            try:
                with contained():
                    built[name] = import_target(card)()
            except BrokenPluginError:
                raise
            except Exception as error:
                raise BrokenPluginError(
                    f"observer {name!r} cannot be built from {card.target}: {describe_error(error)}",
                    hint="repair its plugin, or leave it out of --observe",
                ) from error
        return built

    @property
    def main(self) -> bool:
        return bool(self.accelerator.is_main_process)

    def go(self) -> RunResult:
        try:
            result = self._go()
        except BaseException as error:
            self.observers.tell("end", None, error)
            problem = self._explained(error)
            if self.claim is not None and not self.lasting:
                self.claim.undo((*RUN_FILES, *RUN_FOLDERS))
            if problem is None:
                raise
            raise problem from error
        finally:
            if self.claim is not None:
                self.claim.release()
        self.observers.tell("end", result, None)
        return result

    def _resume_words(self) -> str:
        return resume_words(self.folder, trusting=self.settings.trust_remote_code)

    def _explained(self, error: BaseException) -> AlignzooError | None:
        """What to say of a failure that is not the program's, and how the run is continued; None for others."""
        resume = f"continue with: {self._resume_words()}"
        if isinstance(error, KeyboardInterrupt) and self.lasting:
            return Interrupted("interrupted", hint=resume)
        if not isinstance(error, Exception) or not self.claimed:
            return None
        return file_problem(error, self.folder, resume if self.lasting else "run it again")

    def _go(self) -> RunResult:
        loop, parts, tokenizer = self._prepare()
        self.observers.tell("start", self.folder, plan_to_dict(self.plan), loop.steps)
        before = self._before(loop, tokenizer)
        self.lasting = True
        loop.run()
        after = self._figures(loop, tokenizer)
        with loop.controller.for_evaluation():
            weights = self._save_model(loop, tokenizer)
        if self.settings.track:
            self.accelerator.end_training()
        return self._finish(loop, parts, before, after, weights)

    def _prepare(self) -> tuple[Loop, Parts, Any]:
        """Everything before the first step; what cannot work fails here, the cheap checks first."""
        from alignzoo.data.parts import load_parts, warn_of_little
        from alignzoo.model.load import (
            check_quantisation,
            check_vocabulary,
            find_model,
            how_to_load,
            load_config,
            load_policy,
            load_tokenizer,
        )
        from alignzoo.model.positions import fitted, warn_beyond_positions
        from alignzoo.runs.environment import describe_environment
        from alignzoo.train.assemble import assemble
        from alignzoo.train.optim import optimizer_class

        optimizer_class(self.settings.optimizer)
        self._check_batch()
        source = find_model(self.settings.model)
        check_quantisation(self.settings, source)
        config = load_config(source, self.settings)
        self.plan = fitted(self.plan, config, self.report)
        self.settings = settings = self.plan.settings
        tokenizer = load_tokenizer(source, settings)
        self._take_folder()
        with self.accelerator.main_process_first():
            parts = load_parts(
                settings,
                tokenizer,
                needs=self.plan.needs,
                report=self.report,
                folder=self.folder if self.main else None,
            )
        warn_of_little(parts, settings, self.report)
        warn_beyond_positions(config, parts.longest(), self.report)
        self.report.note(f"loading {settings.model}")
        policy = load_policy(source, settings)
        if source.gguf and hasattr(policy, "peft_config"):
            self.report.note(how_to_load(source, self.folder / "model"))
        check_vocabulary(policy, max(parts.highest_id, tokenizer.pad_token_id), settings.model)
        policy.to(self.accelerator.device)
        if self.main:
            summaries = {name: summary.to_dict() for name, summary in parts.summaries.items()}
            write_once(self.folder / "data.json", summaries)
            environment = describe_environment(self.accelerator.num_processes, str(self.accelerator.device))
            write_once(self.folder / "env.json", environment)
        self.accelerator.wait_for_everyone()
        loop = assemble(
            self.plan,
            policy,
            parts,
            tokenizer=tokenizer,
            accelerator=self.accelerator,
            folder=self.folder,
            report=self.report,
            resuming=self.resuming,
            observers=self.observers,
            planned=plain_values(plan_as_started(self.folder)) if self.main else None,
        )
        return loop, parts, tokenizer

    def _take_folder(self) -> None:
        """Claim the run folder, on the first rank; a new one gets its plan, so that a run killed from here on can be
        resumed.

        Raises:
            AlignzooError: another process uses it, it is not free, or it cannot be written.
        """
        introduced, self.folder = self.folder, on_all_ranks(self.accelerator, self._claim)[0]
        if self.folder != introduced:
            self.report.note(f"another run has that folder; this one takes {self.folder}")
        self.claimed = True
        if self.settings.track:
            where = self.accelerator.project_configuration
            where.project_dir = where.logging_dir = str(self.folder)

    def _claim(self) -> Path:
        if not self.main:
            return self.folder
        if self.resuming:
            self.claim = claim_run(self.folder, self.report)
            return self.folder
        claim = claim_new if self.settings.out else claim_default
        self.claim = claim(self.folder, self.report)
        with stating(self.claim.folder, "allow writing there, or name another place with --out"):
            write_plan(self.plan, self.claim.folder)
        return self.claim.folder

    def _check_batch(self) -> None:
        world = self.accelerator.num_processes
        if self.settings.batch_size % world:
            raise UsageError(
                f"--batch-size {self.settings.batch_size} cannot be divided over {world} ranks",
                hint=f"use a multiple of {world}",
            )

    def _before(self, loop: Loop, tokenizer: Any) -> dict[str, float]:
        try:
            before = read_before(self.folder) if self.resuming else None
        except DamagedError as error:
            fate = "lost" if loop.done > 0 else "computed again"
            self.report.warn(f"{error.message}; the figures before training are {fate}")
            before = None
        if before is not None:
            return before
        if loop.done > 0:
            return {}
        before = self._figures(loop, tokenizer)
        if self.main:
            write_evaluation(self.folder, before=before)
        return before

    def _figures(self, loop: Loop, tokenizer: Any) -> dict[str, float]:
        """Figures at the current weights: on held-out pairs, and from generated answers where something judges them."""
        figures = loop.evaluate()
        if self.answers is not None:
            figures |= self._of_answers(self.answers, loop, tokenizer)
        self.accelerator.wait_for_everyone()
        self.observers.tell("evaluation", loop.done, figures)
        return figures

    def _of_answers(self, answers: Answers, loop: Loop, tokenizer: Any) -> dict[str, float]:
        """What the evaluator says of generated answers, on the main process."""
        from alignzoo.distributed.sharding import gathered

        model = self.accelerator.unwrap_model(loop.engine.model)
        with loop.controller.for_evaluation(), gathered(model):
            figures = answers.figures(model, tokenizer, self.report) if self.main else {}
            self.accelerator.wait_for_everyone()
        return figures

    def _save_model(self, loop: Loop, tokenizer: Any) -> str:
        """Write ``model/``; returns the hash of its weights, on all ranks."""
        from accelerate.utils import broadcast_object_list

        from alignzoo.distributed.sharding import full_state
        from alignzoo.model.weights import fingerprint

        model = self.accelerator.unwrap_model(loop.engine.model)
        state = full_state(model, keep=self.main)
        if self.main:
            self._write_model(model, tokenizer, state)
        weights = [fingerprint(state)]
        if self.accelerator.num_processes > 1:
            broadcast_object_list(weights)
        return weights[0]

    def _write_model(self, model: Any, tokenizer: Any, state: dict[str, Any]) -> None:
        from alignzoo.model.weights import save_model

        target = self.folder / "model"
        try:
            with whole(target) as path:
                save_model(model, tokenizer, path, state)
        except Exception as error:
            check_there(self.folder)
            raise AlignzooError(
                f"could not save the model in {target}: {error}",
                hint=f"the last checkpoint is whole; {remedy(error)} and finish with: {self._resume_words()}",
            ) from error

    def _finish(
        self, loop: Loop, parts: Parts, before: dict[str, float], after: dict[str, float], weights: str
    ) -> RunResult:
        result = RunResult(
            folder=str(self.folder),
            sentence=self.plan.sentence(),
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
        )
        if self.main:
            write_evaluation(self.folder, before=before, after=after)
            result.save()
        report_outcome(before, after, self.report, self.answers)
        self.report.note(f"{loop.steps} steps in {result.seconds:.1f} s; the model is in {self.folder / 'model'}")
        return result


def _ranks_on_cpu() -> bool:
    """Several ranks where there are CPUs only: accelerate must be told, or each of them runs alone."""
    import torch

    return distributed_backend() != "none" and not torch.accelerator.is_available()


def _forget_other_precision(precision: str) -> None:
    """accelerate keeps one precision per process; runs after one another may differ in theirs."""
    from accelerate.state import AcceleratorState

    if AcceleratorState._shared_state and AcceleratorState().mixed_precision != precision:
        AcceleratorState._reset_state()


def _check_trackers(names: Sequence[str]) -> None:
    for name in names:
        modules = ("tensorboard", "tensorboardX") if name == "tensorboard" else (name,)
        if not any(importlib.util.find_spec(module) for module in modules):
            raise UsageError(f"--track {name} needs a package that is missing", hint=f"pip install 'alignzoo[{name}]'")
