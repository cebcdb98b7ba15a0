"""A controller on a bench: made ready, and held to leave the model as it was with finite gradients."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from alignzoo.contract.card import Card
from alignzoo.interfaces import GeometryController
from alignzoo.lazy import torch
from alignzoo.testing.outcomes import Skipped, Violation
from alignzoo.testing.snapshot import Snapshot
from alignzoo.testing.stages import coupled_goal, mean_goal
from alignzoo.testing.subject import Configuration, Subject
from alignzoo.testing.sweep import sweep, telling_steps, working

if TYPE_CHECKING:
    from alignzoo.objective.objective import Objective
    from alignzoo.testing.steps import Bench


_RESTORE = "undo in a `finally`, or perturb with alignzoo.geometry.side_branch, which leaves the weights alone"


def in_a_coupled_step(card: Card, controller: Any) -> tuple[Objective, GeometryController]:
    """The controller on an objective that couples all pairs of the step."""
    return coupled_goal(), controller


def in_a_mean_step(card: Card, controller: Any) -> tuple[Objective, GeometryController]:
    """The controller on a mean over pairs."""
    return mean_goal(), controller


def ready(
    subject: Subject, configuration: Configuration, *, adapter: bool = False, disordered: bool = False
) -> tuple[Bench, Any]:
    """A bench and a new controller that has seen its model; ``disordered``: with frozen weights and mixed modes."""
    from alignzoo.testing.steps import Bench

    bench, controller = Bench(adapter=adapter), subject.build(configuration)
    if disordered:
        bench.policy.model.embed_tokens.weight.requires_grad_(False)
        bench.policy.train()
        bench.policy.model.layers[0].eval()
    before = Snapshot(bench.policy)
    bench.setup(controller)
    changes = [change for change in before.changes(bench.policy) if not change.startswith("changed hooks")]
    if changes:
        raise Violation(
            expected="setup() to leave the model as it is",
            found=f"{', '.join(changes)} {configuration}",
            remedy="work on a copy",
        )
    return bench, controller


def disordered(subject: Subject, configuration: Configuration) -> tuple[Bench, Any]:
    """:func:`ready` on a model in which a blanket reset of flags and modes is noticed."""
    return ready(subject, configuration, disordered=True)


def check_unchanged(before: Snapshot, bench: Bench, when: str) -> None:
    """Raise a violation if the model differs from the snapshot."""
    changes = list(before.changes(bench.policy))
    if changes:
        raise Violation(
            expected="weights, buffers, flags, modes and hooks as they were, bit for bit",
            found=f"{', '.join(changes)} {when}",
            remedy=_RESTORE,
        )


def check_initial(controller: GeometryController, bench: Bench, configuration: Configuration) -> None:
    """Raise a violation if what is evaluated before the first step are not the initial weights."""
    initial = {name: weight.detach().clone() for name, weight in bench.policy.named_parameters()}
    with controller.for_evaluation():
        others = [name for name, weight in bench.policy.named_parameters() if not weight.equal(initial[name])]
    if others:
        raise Violation(
            expected="the initial weights in for_evaluation() before the first step",
            found=f"others in {others[0]} {configuration}",
            remedy="leave the weights as they are until after_step() has been called",
        )


def check_gradients(bench: Bench, configuration: Configuration) -> None:
    """Raise a violation unless all trainable weights, and only these, have finite gradients; they are then cleared."""
    for name, parameter in bench.policy.named_parameters():
        gradient = parameter.grad
        if parameter.requires_grad and (gradient is None or not bool(torch.isfinite(gradient).all())):
            raise Violation(
                expected="a finite gradient in .grad of every trainable parameter",
                found=f"{'none' if gradient is None else 'NaN or infinity'} in {name} {configuration}",
                remedy="end the step with ctx.backward(), or fill in every .grad yourself",
            )
        if not parameter.requires_grad and gradient is not None:
            raise Violation(
                expected="no gradient in a frozen parameter",
                found=f"one in {name} {configuration}",
                remedy="touch the .grad of parameters with requires_grad only",
            )
    bench.policy.zero_grad()


def whole_step_runs(subject: Subject) -> list[tuple[Configuration, tuple[int, ...]]]:
    """The configurations that do not work per micro-batch (an option ``scope`` with the value ``microbatch`` says so),
    each with the steps to compare: all telling ones at first, then the one in which the most happens, if the controller
    does not count them itself."""
    whole = [c for c in working(subject) if getattr(c.options, "scope", None) != "microbatch"]
    if not whole:
        raise Skipped("every configuration has scope='microbatch'")
    runs = [(configuration, telling_steps(subject, configuration)) for configuration in whole]
    return runs[:1] + [(c, steps if sweep(subject, c).moving else steps[-1:]) for c, steps in runs[1:]]


def declared_reference(subject: Subject) -> None:
    """Hold setups to the card: the reference is asked for where it says that it is moved, and only there."""
    declared = bool(getattr(subject.card, "moves_reference", False))
    for configuration in working(subject):
        bench, _ = ready(subject, configuration)
        if (bench.moving is not None) != declared:
            raise Violation(
                expected=f"moving_reference() {'' if declared else 'not '}to be called in setup(), as the card says",
                found=f"that it is{' not' if declared else ''} {configuration}",
                remedy="set moves_reference on the card where the reference is moved, and only there: it costs a copy "
                "of the model and a forward pass in every step",
            )
