"""Rules of geometry controllers, tried on a tiny float64 llama with the real step context."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

from alignzoo.contract.card import Card
from alignzoo.contract.geometry import GeometryCard
from alignzoo.errors import AlignzooError
from alignzoo.interfaces import StepLoss
from alignzoo.lazy import torch
from alignzoo.testing.common import every_option_matters, probed_as_declared
from alignzoo.testing.compare import EXACT, relative_error, same_however_cut, same_on_two_ranks
from alignzoo.testing.geometry_bench import (
    check_gradients,
    check_initial,
    check_unchanged,
    declared_reference,
    disordered,
    in_a_coupled_step,
    in_a_mean_step,
    ready,
    whole_step_runs,
)
from alignzoo.testing.outcomes import Rule, Skipped, Violation
from alignzoo.testing.snapshot import Snapshot
from alignzoo.testing.stages import coupled_goal, mean_goal
from alignzoo.testing.subject import Configuration, Subject
from alignzoo.testing.sweep import STEPS, Forwards, InjectedFailure, sweep, telling_steps, working

if TYPE_CHECKING:
    pass


def _step_report(subject: Subject) -> None:
    from alignzoo.testing.steps import PAIRS

    for configuration in working(subject):
        bench, controller = ready(subject, configuration)
        *ahead, last = telling_steps(subject, configuration)
        goals = [(step, mean_goal()) for step in ahead or [last]]
        for step, goal in (*goals, (last, coupled_goal())):
            expected = bench.context(goal, step, size=PAIRS // 2).evaluate()
            loss = controller.step(bench.context(goal, step, size=PAIRS // 2))
            if not isinstance(loss, StepLoss):
                raise Violation(
                    expected="step() to return a StepLoss",
                    found=f"a {type(loss).__name__}",
                    remedy="return what ctx.backward() or ctx.gradient() reported at the unperturbed weights",
                )
            same = relative_error(loss.value.reshape(()), expected.value) <= EXACT
            if not (same and len(loss.row_ids) == PAIRS and torch.equal(loss.row_ids, expected.row_ids)):
                raise Violation(
                    expected=f"the report of {PAIRS} pairs at the weights before the step, value "
                    f"{float(expected.value):.6g}",
                    found=f"one of {len(loss.row_ids)} pairs, value {float(loss.value):.6g} {configuration}",
                    remedy="return what the first pass reported, not the one at the perturbed weights",
                )
            check_gradients(bench, configuration)


def _restoration(subject: Subject) -> None:
    for configuration in working(subject):
        bench, controller = disordered(subject, configuration)
        for step in telling_steps(subject, configuration):
            before = Snapshot(bench.policy)
            controller.step(bench.context(mean_goal(), step, size=4))
            check_unchanged(before, bench, f"after step {step} {configuration}")


def _restoration_after_failure(subject: Subject) -> None:
    for configuration in working(subject):
        *ahead, step = telling_steps(subject, configuration)
        bench, controller = disordered(subject, configuration)
        for earlier in ahead:
            controller.step(bench.context(mean_goal(), earlier))
        state_before, whole = copy.deepcopy(controller.state_dict()), Forwards()
        controller.step(bench.context(mean_goal(), step, size=4, forward=whole))
        for failing in range(whole.count):
            bench, controller = disordered(subject, configuration)
            controller.load_state_dict(copy.deepcopy(state_before))
            before = Snapshot(bench.policy)
            where = f"forward {failing + 1} of {whole.count} failed, {configuration}"
            try:
                controller.step(bench.context(mean_goal(), step, size=4, forward=Forwards(fail_at=failing)))
            except InjectedFailure:
                check_unchanged(before, bench, f"after {where}")
            else:
                raise Violation(
                    expected="an error inside a step to come out of it",
                    found=f"a step that went on although {where}",
                    remedy="do not catch errors of the context: a run has to stop",
                )


def _radius_zero(subject: Subject) -> None:
    tried = 0
    for configuration in working(subject):
        zero = subject.configure({**configuration.values, "rho": 0.0})
        if zero is None:
            continue
        tried += 1
        bench, controller = ready(subject, zero)
        plain, _ = ready(subject, zero)
        for step in range(STEPS) if configuration is subject.default else telling_steps(subject, configuration):
            controller.step(bench.context(mean_goal(), step, size=4))
            plain.context(mean_goal(), step, size=4).backward()
            if not torch.equal(bench.gradient(), plain.gradient()):
                raise Violation(
                    expected="the plain gradient, bit for bit, at rho=0",
                    found=f"another in step {step} {zero}",
                    remedy="take the plain pass where the radius is 0: even a zero perturbation changes how layers "
                    "round",
                )
    if not tried:
        raise Skipped("no configuration takes rho=0")


def _accumulation(subject: Subject) -> None:
    runs = whole_step_runs(subject)
    same_however_cut(subject, in_a_coupled_step, runs, rule="accumulation")
    same_however_cut(subject, in_a_mean_step, runs[:1], rule="accumulation")


def _ranks(subject: Subject) -> None:
    same_on_two_ranks(subject, in_a_coupled_step, whole_step_runs(subject))


def _sharded(subject: Subject) -> None:
    same_on_two_ranks(subject, in_a_coupled_step, whole_step_runs(subject), sharded=True)


def _passes(subject: Subject) -> None:
    declared = _card(subject.card).passes
    for configuration in working(subject):
        for i, step in enumerate(sweep(subject, configuration)):
            if step.passes > declared:
                raise Violation(
                    expected=f"at most {declared} forward-backward {'pass' if declared == 1 else 'passes'} in a step",
                    found=f"{step.passes:g} in step {i} {configuration}",
                    remedy="correct the card's `passes`: users weigh a method's cost by it",
                )


def _survival(subject: Subject) -> None:
    for configuration in working(subject):
        for i, step in enumerate(sweep(subject, configuration)):
            if step.moved and "geometry/survival" not in step.metrics:
                raise Violation(
                    expected="a step that moves weights to log geometry/survival",
                    found=f"{', '.join(step.metrics) or 'nothing'} in step {i} {configuration}",
                    remedy="move them with ctx.perturbed(weights, deltas), which logs the share that the forward sees",
                )


def _lora(subject: Subject) -> None:
    refusals = 0
    for configuration in working(subject):
        try:
            bench, controller = ready(subject, configuration, adapter=True)
            for step in telling_steps(subject, configuration):
                before = Snapshot(bench.policy)
                controller.step(bench.context(mean_goal(), step, size=4))
                check_unchanged(before, bench, f"after step {step} with a LoRA adapter, {configuration}")
                check_gradients(bench, configuration)
        except AlignzooError:
            refusals += 1
    if refusals == len(working(subject)):
        raise Skipped("refused under a LoRA adapter, with an error that says so")


def _declared_probe(subject: Subject) -> None:
    asked: list[tuple[Configuration, bool]] = []
    for configuration in working(subject):
        bench, controller = ready(subject, configuration)
        for step in telling_steps(subject, configuration):
            controller.step(bench.context(mean_goal(), step, size=4))
        asked.append((configuration, bench.probes_trained > 0))
    probed_as_declared(subject, asked)


def _evaluation(subject: Subject) -> None:
    for configuration in working(subject):
        bench, controller = ready(subject, configuration)
        check_initial(controller, bench, configuration)
        for step in telling_steps(subject, configuration):
            controller.step(bench.context(mean_goal(), step, size=4))
        before = Snapshot(bench.policy)
        with controller.for_evaluation():
            pass
        check_unchanged(before, bench, f"after for_evaluation() {configuration}")
        try:
            with controller.for_evaluation():
                raise InjectedFailure("the kit lets this evaluation fail")
        except InjectedFailure:
            check_unchanged(before, bench, f"after an error inside for_evaluation() {configuration}")


def _no_dead_option(subject: Subject) -> None:
    every_option_matters(subject, lambda a, b: _different(subject, a, b))


def state(subject: Subject) -> None:
    """Half of the steps, the state saved, then the other half by the old controller and by a new one."""
    from alignzoo.step.states import plain_state

    for configuration in working(subject):
        bench, controller = ready(subject, configuration)
        for step in range(STEPS // 2):
            controller.step(bench.context(mean_goal(), step))
            bench.gradient()
        saved = copy.deepcopy(plain_state(controller))
        other, fresh = ready(subject, configuration)
        other.policy.load_state_dict(bench.policy.state_dict())  # as a resumed run does
        fresh.load_state_dict(saved)
        for step in range(STEPS // 2, STEPS):
            controller.step(bench.context(mean_goal(), step))
            fresh.step(other.context(mean_goal(), step))
            if not torch.equal(bench.gradient(), other.gradient()):
                raise Violation(
                    expected="a new controller with the old one's state_dict() to take the old one's steps",
                    found=f"another gradient in step {step} {configuration}",
                    remedy="put everything that steps change into state_dict(), take it out in load_state_dict(), "
                    "and draw with ctx.generator",
                )


def _different(subject: Subject, one: Configuration, other: Configuration) -> bool:
    """Whether two configurations differ in a gradient, a metric or a refusal; looked for step by step."""
    ours, theirs = sweep(subject, one), sweep(subject, other)
    for a, b in zip(ours, theirs, strict=False):
        if a.differs(b):
            return True
    return ours.refusal != theirs.refusal


def _card(card: Card) -> GeometryCard:
    assert isinstance(card, GeometryCard)
    return card


def _has_rho(card: Card) -> bool:
    return "rho" in card.options.model_fields and _takes_the_gradient(card)


def _declares_sharded(card: Card) -> bool:
    return _card(card).sharded


def _takes_the_gradient(card: Card) -> bool:
    return not _card(card).companion


RULES = (
    Rule("no-dead-option", "every option changes a gradient, a metric, or what is refused", _no_dead_option),
    Rule("state", "state_dict is plain data, and all that a resumed run needs", state),
    Rule(
        "step-report",
        "a step reports the objective before it, and leaves finite gradients",
        _step_report,
        _takes_the_gradient,
    ),
    Rule(
        "restoration",
        "a step leaves weights, buffers, flags, modes and hooks bit-identical",
        _restoration,
        _takes_the_gradient,
    ),
    Rule(
        "restoration-after-failure",
        "so does a step in which any forward fails",
        _restoration_after_failure,
        _takes_the_gradient,
    ),
    Rule(
        "evaluation",
        "for_evaluation starts with the initial weights and gives weights back, bit-identical, even after an error",
        _evaluation,
    ),
    Rule("radius-zero", "with rho=0 the gradient is the plain one, bit for bit", _radius_zero, _has_rho),
    Rule("accumulation", "a step does not depend on how it is cut into micro-batches", _accumulation),
    Rule("ranks", "two ranks take the step that one takes", _ranks),
    Rule(
        "sharded",
        "two ranks that each hold a part of the weights (FSDP2) take the step that one takes",
        _sharded,
        _declares_sharded,
    ),
    Rule("passes", "a step takes at most the declared number of passes", _passes),
    Rule(
        "survival",
        "a step that moves weights logs which share of the perturbation reaches the forward",
        _survival,
        _takes_the_gradient,
    ),
    Rule("lora", "works under a LoRA adapter, or refuses it with an error", _lora, _takes_the_gradient),
    Rule("declared-reference", "the reference is moved where it is declared, and only there", declared_reference),
    Rule("declared-probe", "a probe is asked for where it is declared, and only there", _declared_probe),
)
