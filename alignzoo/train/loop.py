"""The training loop: optimizer steps over whole batches.

for each step: reference log-probs -> controller.step(ctx) -> clip -> optimizer step -> a line of metrics
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from alignzoo.base.checkpoints import step_of
from alignzoo.base.stop import stop_requests
from alignzoo.contract.geometry import StepLoss
from alignzoo.data.batches import Batches
from alignzoo.distributed.shards import cut_like, mesh_of, whole
from alignzoo.errors import Interrupted, NonFiniteLossError
from alignzoo.model.weights import on_the_cpu
from alignzoo.observers import Observers
from alignzoo.plan.settings import Settings
from alignzoo.plugin.registry import resume_words
from alignzoo.reference.cached import CachedReference
from alignzoo.reference.frozen import ReferenceForward
from alignzoo.report import Reporter
from alignzoo.step.context import StepContext
from alignzoo.step.controllers import Controllers
from alignzoo.step.engine import Engine
from alignzoo.step.held_out import HeldOut
from alignzoo.step.metrics import name_rows, non_finite, reward_metrics, weight_metrics
from alignzoo.step.states import plain_state
from alignzoo.train.checkpoint import Checkpoint, save_checkpoint, save_sharded_checkpoint, whole_checkpoints
from alignzoo.train.metrics import MetricsFile, metrics_digest
from alignzoo.train.optim import learning_rate, load_optimizer

SURVIVES = 0.9
"""If a smaller share of a perturbation reaches the forward, there is a warning."""


@dataclass
class Loop:
    """One training run over a prepared engine.

    Attributes:
        batches: this rank's micro-batches of a step, by 0-based step.
        steps: optimizer steps of the whole run.
        folder: the run folder, where rank 0 writes metrics and checkpoints.
        identities: hashes that a resume must match.
        observers: notified of steps, evaluations and checkpoints.
        plan: the plan's values by flag, which a resume must match.
        done: optimizer steps taken so far.
        warned_of_rounding: whether the rounding warning was given.
        tokens: tokens trained on so far, without padding.
        metrics: the digest of the metrics that the checkpoint was saved with; None for a new run.
        generated: figures of generated responses, for every evaluation; called on every rank.
        evaluated: the step of the last evaluation, and its figures.
        seen: called with the loss of each step and its 0-based number, on the main process.
    """

    engine: Engine
    controller: Controllers
    reference: ReferenceForward | None
    optimizer: torch.optim.Optimizer
    batches: Batches
    held_out: HeldOut | None
    settings: Settings
    steps: int
    folder: Path
    report: Reporter
    identities: dict[str, str]
    observers: Observers
    plan: dict[str, Any]
    done: int = 0
    tokens: int = 0
    metrics: str | None = None
    warned_of_rounding: bool = False
    generated: Callable[[], dict[str, float]] | None = None
    evaluated: tuple[int, dict[str, float]] | None = None
    seen: Callable[[StepLoss, int], None] | None = None

    def run(self) -> None:
        """Train until :attr:`steps`.

        Raises:
            NonFiniteLossError: names the step, the pairs and the last good checkpoint; nothing is updated.
            Interrupted: Ctrl-C, SIGTERM or SIGHUP, after saving a checkpoint.
        """
        settings = self.settings
        metrics = MetricsFile(self.folder, self.report, done=self.done, digest=self.metrics) if self._writes else None
        self.engine.model.train()
        say = partial(self.report.note, "finishing this step and saving; press Ctrl-C again to stop immediately")
        progress = self.report.progress(self.steps, "training", unit="step", done=self.done)
        with stop_requests(say) as stop, progress as bar:
            while self.done < self.steps:
                line, figures = self._step(self.done), dict[str, float]()
                self.done += 1
                self._warn_of_rounding(line)
                if settings.eval_every and self.done % settings.eval_every == 0:
                    figures = self.evaluate()
                    line |= figures
                if metrics:
                    metrics.append(line)
                self.observers.tell("step_end", self.done, line)
                if figures:
                    self.observers.tell("evaluation", self.done, figures)
                if settings.track:
                    self.engine.accelerator.log({k: v for k, v in line.items() if k != "step"}, step=self.done)
                bar.advance(**_shown(line))
                if self._agree(stop.is_set()):
                    self.save()
                    raise Interrupted(
                        f"stopped after step {self.done} of {self.steps}; state saved",
                        hint=f"resume with: {resume_words(self.folder, trusting=settings.trust_remote_code)}",
                    )
                if self._is_due():
                    self.save()

    def _is_due(self) -> bool:
        """Whether to write a checkpoint after this step: at the last one too, unless the model is not kept either."""
        if self.done == self.steps:
            return self.settings.save_model
        return bool(self.settings.save_every) and self.done % self.settings.save_every == 0

    def _warn_of_rounding(self, line: Mapping[str, Any]) -> None:
        """Warn once if a perturbation is lost to rounding in the forward."""
        survival = line.get("geometry/survival")
        if self.warned_of_rounding or survival is None or survival >= SURVIVES:
            return
        self.warned_of_rounding = True
        remedy = "use --precision fp32 or a larger radius" if self.settings.precision == "bf16" else "it is too small"
        self.report.warn(
            f"step {line['step']}: {survival:.0%} of the perturbation reaches the forward (geometry/survival) and the "
            f"rest is rounded away, so the radius is shorter than set; {remedy}"
        )

    def evaluate(self) -> dict[str, float]:
        """Figures at the weights that would be saved now: on the held-out rows, and of generated responses. They are
        computed once for each step."""
        if self.evaluated is not None and self.evaluated[0] == self.done:
            return dict(self.evaluated[1])
        figures: dict[str, float] = {}
        with self.controller.for_evaluation():
            if self.held_out is not None:
                figures |= self.held_out.evaluate(step=self.done)
            if self.generated is not None:
                figures |= self.generated()
        self.evaluated = self.done, dict(figures)
        return figures

    def _step(self, step: int) -> dict[str, Any]:
        """One optimizer step; returns its line of metrics."""
        begin = time.perf_counter()
        device = self.engine.accelerator.device
        made = self.batches(step)
        batches = [batch.to(device) for batch in made]
        asked = made if isinstance(self.reference, CachedReference) else batches  # a table is looked up on the host
        references = [self.reference(batch) if self.reference else None for batch in asked]
        context = StepContext(self.engine, batches, references, step)
        loss = self.controller.step(context)
        value, norm = torch.stack([loss.value, self._clip().to(loss.value)]).tolist()  # one device synchronisation
        if not (math.isfinite(value) and math.isfinite(norm)):
            self._stop_at_non_finite(step, loss, value, norm)
        lr = learning_rate(step, self.steps, self.settings)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.step()
        self.controller.after_step(context)
        objective, responses = self.engine.objective, loss.responses
        objective_figures = {
            **reward_metrics(objective.preference, responses),
            **weight_metrics(objective, responses),
            **objective.metrics(responses),
        }
        if self.seen is not None and self._writes:
            self.seen(loss, step)
        objective.observe(responses, coupled=False)
        self.optimizer.zero_grad(set_to_none=True)
        tokens = sum(batch.tokens for batch in batches)
        if self.engine.world > 1:
            tokens = int(self.engine.accelerator.reduce(torch.tensor(tokens, device=device), reduction="sum"))
        self.tokens += tokens
        return {
            "step": step + 1,
            "loss": value,
            "grad_norm": norm,
            "lr": lr,
            "step_seconds": round(time.perf_counter() - begin, 4),
            "tokens": tokens,
            "total_tokens": self.tokens,
            **objective_figures,
            **context.metrics,
        }

    def _clip(self) -> torch.Tensor:
        """The gradient's norm ``()`` before clipping."""
        limit = self.settings.max_grad_norm or math.inf
        parameters = [p for p in self.engine.model.parameters() if p.requires_grad]
        return whole(torch.nn.utils.clip_grad_norm_(parameters, limit))

    def _stop_at_non_finite(self, step: int, loss: StepLoss, value: float, norm: float) -> None:
        culprits = non_finite(loss.responses, loss.row_ids)
        what = f"the loss is {value}" if not math.isfinite(value) else f"the gradient's norm is {norm}"
        # If no row has a finite value, the weights are to blame, and so is a checkpoint of these weights.
        blamed = step if len(culprits) == len(loss.row_ids) else math.inf
        good = [
            path for path in whole_checkpoints(self.folder) if step_of(path) < blamed and step_of(path) <= self.done
        ]
        raise NonFiniteLossError(
            f"step {step + 1}: {what}; rows {name_rows(culprits or loss.row_ids.tolist())}",
            hint=(f"the last good checkpoint is {good[-1]}" if good else "no good checkpoint was saved")
            + "; try a lower --lr or --precision fp32, or check those rows of the data",
        )

    def save(self) -> None:
        """Write a checkpoint of the state after :attr:`done` steps: all of it by rank 0, or, where ranks share the
        weights, by each its part. It can be resumed on any number of ranks."""
        accelerator, sharded = self.engine.accelerator, self.engine.sharded
        model, state = accelerator.unwrap_model(self.engine.model), self.optimizer.state_dict()
        given: dict[str, Any] = {"keep": self._writes, "sharded": sharded}
        tensors = {
            "optimizer": state,
            **{
                kind: [plain_state(method, **given) for method in methods]
                for kind, methods in self.engine.objective.methods().items()
            },
            "geometry": self.controller.state_dict(**given),
        }
        weights = {name: weight.detach() for name, weight in model.named_parameters() if weight.requires_grad}
        identities = {**self.identities, "plan": self.plan, "metrics": metrics_digest(self.folder)}
        words: dict[str, Any] = {"keep": self.settings.keep_checkpoints, "trusting": self.settings.trust_remote_code}
        checkpoint = Checkpoint(self.done, weights, tensors, {"tokens": self.tokens, **identities})
        if sharded:
            path = save_sharded_checkpoint(self.folder, checkpoint, accelerator, **words)
        elif self._writes:
            path = save_checkpoint(self.folder, replace(checkpoint, weights=on_the_cpu(weights)), **words)
        if self._writes:
            self.observers.tell("checkpoint", self.done, path)
        accelerator.wait_for_everyone()

    def restore(self, checkpoint: Checkpoint) -> None:
        """Continue from a checkpoint's state."""
        model = self.engine.accelerator.unwrap_model(self.engine.model)
        parameters = dict(model.named_parameters())
        checkpoint = checkpoint.filled(mesh_of(parameters.values()))
        with torch.no_grad():
            for name, tensor in checkpoint.weights.items():
                parameters[name].copy_(cut_like(tensor, parameters[name]))
        load_optimizer(self.optimizer, checkpoint.tensors["optimizer"])
        for kind, methods in self.engine.objective.methods().items():
            for method, state in zip(methods, checkpoint.tensors[kind], strict=True):
                method.load_state_dict(state)
        self.controller.load_state_dict(checkpoint.tensors["geometry"])
        self.done = checkpoint.step
        self.tokens = checkpoint.facts["tokens"]
        self.metrics = checkpoint.facts["metrics"]

    @property
    def _writes(self) -> bool:
        return bool(self.engine.accelerator.is_main_process)

    def _agree(self, stop: bool) -> bool:
        """Whether any rank was asked to stop: all must leave the loop at the same step."""
        if self.engine.world == 1:
            return stop
        flag = torch.tensor(int(stop), device=self.engine.accelerator.device)
        return bool(self.engine.accelerator.reduce(flag, reduction="sum") > 0)


def _shown(line: Mapping[str, Any]) -> dict[str, str]:
    """The figures of a step in the progress bar."""
    shown = {"loss": f"{line['loss']:.4f}"}
    if "rewards/margins" in line:
        shown["margin"] = f"{line['rewards/margins']:+.4f}"
    return shown | {"tokens_per_s": f"{line['tokens'] / line['step_seconds']:.0f}"}
