"""A whole run: plan -> data -> model -> training -> run folder. ``run`` is the Python API, ``execute`` the command's.

from alignzoo import run
result = run({"loss": "dpo", "geometry": "shapo-token", "max-steps": 20})
"""

from __future__ import annotations

import importlib.util
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignzoo.errors import AlignzooError, BrokenPluginError, UsageError, contained
from alignzoo.launch import distributed_backend, take_over_sharding
from alignzoo.observers import Observers
from alignzoo.outcome import RunResult, read_before, report_outcome, write_evaluation
from alignzoo.plugin.build import import_target
from alignzoo.plugin.faults import describe_error
from alignzoo.plugin.plan import SANDBOX, Plan
from alignzoo.plugin.planfile import PLAN_FILE, changed_plugins, plan_to_dict, read_plan
from alignzoo.plugin.recipe import Layer, flatten, read_recipe
from alignzoo.plugin.registry import plugin_words, registry
from alignzoo.plugin.resolve import require, resolve
from alignzoo.report import Reporter
from alignzoo.run_folder import check_free, default_folder, is_disk_full, leave_as_it_was, open_folder, write_once

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
    return _Run(plan, reporter, None).go()


def resume(folder: str | Path, *, reporter: Reporter) -> RunResult:
    """Continue a run from its last whole checkpoint; its plan stays as it is.

    Raises:
        AlignzooError: not a run folder, or the model or data it started from have changed.
    """
    path = Path(folder)
    plan = read_plan(path)
    finished = RunResult.load(path)
    if finished is not None:
        reporter.note(f"{path} has finished all its {finished.steps} steps; nothing to do")
        return finished
    for remark in changed_plugins(path, plan):
        reporter.warn(remark)
    return _Run(plan, reporter, path).go()


class _Run:
    def __init__(self, plan: Plan, report: Reporter, folder: Path | None) -> None:
        from accelerate import Accelerator
        from accelerate.utils import broadcast_object_list

        take_over_sharding()
        self.began = time.perf_counter()
        self.plan, self.settings, self.report = plan, plan.settings, report
        self.resuming = folder is not None
        _check_trackers(self.settings.track)
        folder = folder or Path(self.settings.out or default_folder(plan))
        precision = "bf16" if self.settings.precision == "bf16" else "no"
        _forget_other_precision(precision)
        self.accelerator = Accelerator(
            cpu=_ranks_on_cpu(),
            gradient_accumulation_steps=1,
            mixed_precision=precision,
            log_with=list(self.settings.track) or None,
            project_dir=str(folder) if self.settings.track else None,
        )
        name = [str(folder)]
        if self.accelerator.num_processes > 1:
            broadcast_object_list(name)
        self.folder = Path(name[0])
        if self.accelerator.is_main_process and not self.resuming:
            check_free(self.folder)
        self.accelerator.wait_for_everyone()
        self.observers = Observers(self._observers() if self.main else {}, report)
        self.judge = import_target(registry().find_extension("judge", self.settings.judge))

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
            if not isinstance(error, Exception) or not is_disk_full(error):
                raise
            again = (
                f"continue with --resume {self.folder}{plugin_words()}"
                if (self.folder / PLAN_FILE).is_file()
                else "run it again"
            )
            raise AlignzooError(
                f"cannot write {getattr(error, 'filename', None) or self.folder}: {error}",
                hint=f"free some space and {again}",
            ) from error
        self.observers.tell("end", result, None)
        return result

    def _go(self) -> RunResult:
        existed = self.folder.exists()
        try:
            loop, parts, tokenizer = self._prepare()
            self.observers.tell("start", self.folder, plan_to_dict(self.plan), loop.steps)
            before = self._before(loop, tokenizer)
        except BaseException:
            if self.main and not self.resuming:
                leave_as_it_was(self.folder, existed)
            raise
        loop.run()
        after = self._figures(loop, tokenizer)
        with loop.controller.for_evaluation():
            weights = self._save_model(loop, tokenizer)
        if self.settings.track:
            self.accelerator.end_training()
        return self._finish(loop, parts, before, after, weights)

    def _prepare(self) -> tuple[Loop, Parts, Any]:
        """Everything before the first step; what cannot work fails here, the cheap checks first."""
        from alignzoo.data.parts import load_parts
        from alignzoo.environment import describe_environment
        from alignzoo.model.load import (
            check_quantisation,
            check_vocabulary,
            find_model,
            how_to_load,
            load_policy,
            load_tokenizer,
        )
        from alignzoo.train.assemble import assemble
        from alignzoo.train.optim import optimizer_class

        for note in self.plan.notes:
            self.report.note(note)
        settings = self.settings
        optimizer_class(settings.optimizer)
        self._check_batch()
        source = find_model(settings.model)
        check_quantisation(settings, source)
        tokenizer = load_tokenizer(source, settings)
        if self.main and not self.resuming:
            open_folder(self.folder, self.plan)
        with self.accelerator.main_process_first():
            parts = load_parts(
                settings,
                tokenizer,
                needs=self.plan.needs,
                report=self.report,
                folder=self.folder if self.main else None,
            )
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
        )
        return loop, parts, tokenizer

    def _check_batch(self) -> None:
        world = self.accelerator.num_processes
        if self.settings.batch_size % world:
            raise UsageError(
                f"--batch-size {self.settings.batch_size} cannot be divided over {world} ranks",
                hint=f"use a multiple of {world}",
            )

    def _before(self, loop: Loop, tokenizer: Any) -> dict[str, float]:
        kept = read_before(self.folder) if self.resuming else None
        if kept is not None:
            return kept
        if loop.done > 0:
            return {}
        before = self._figures(loop, tokenizer)
        if self.main:
            write_evaluation(self.folder, before=before)
        return before

    def _figures(self, loop: Loop, tokenizer: Any) -> dict[str, float]:
        """Figures at the current weights: on held-out pairs, and for the sandbox from generated answers."""
        figures = loop.evaluate()
        if self.settings.data == SANDBOX:
            self.report.note("sandbox: generating answers")
            figures |= self._rates(loop, tokenizer)
        self.accelerator.wait_for_everyone()
        self.observers.tell("evaluation", loop.done, figures)
        return figures

    def _rates(self, loop: Loop, tokenizer: Any) -> dict[str, float]:
        """What the judge says of generated answers, on the main process."""
        from alignzoo.sandbox import evaluate
        from alignzoo.train.sharding import gathered

        model = self.accelerator.unwrap_model(loop.engine.model)
        with loop.controller.for_evaluation(), gathered(model):
            rates = evaluate(model, tokenizer, judge=self.judge) if self.main else {}
            self.accelerator.wait_for_everyone()
        return {f"sandbox/{name}": value for name, value in rates.items()}

    def _save_model(self, loop: Loop, tokenizer: Any) -> str:
        """Write ``model/``; returns the hash of its weights, on all ranks."""
        from accelerate.utils import broadcast_object_list

        from alignzoo.model.weights import fingerprint
        from alignzoo.train.sharding import full_state

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

        target, partial_folder = self.folder / "model", self.folder / ".model.partial"
        try:
            for leftover in (partial_folder, target):
                shutil.rmtree(leftover, ignore_errors=True)
            save_model(model, tokenizer, partial_folder, state)
            partial_folder.rename(target)
        except Exception as error:
            shutil.rmtree(partial_folder, ignore_errors=True)
            raise AlignzooError(
                f"could not save the model in {target}: {error}",
                hint="the last checkpoint is whole; free some space and finish with "
                f"--resume {self.folder}{plugin_words()}",
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
        )
        if self.main:
            write_evaluation(self.folder, before=before, after=after)
            result.save()
        report_outcome(before, after, self.report)
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
