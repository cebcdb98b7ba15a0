"""The preset ``official`` against the released code's arithmetic, derived here again in plain torch.

Reproduced: the neurons (cosine of every down projection's columns with v = W[1] − W[0], sorted ascending, the first
share of all layers together, chosen once on the initial weights); the objective of each micro-batch alone on each rank,
also where Dr. DPO couples its pairs, in every step; and every fifth step, per micro-batch, the gradient of that
objective on the selected columns, W += γ·g with a γ ~ U(2e-6, 4e-6) of its own and without normalisation, the gradient
of all parameters there, and the weights back; the mean of these over the micro-batches.

Not reproduced, because it is no part of the method: the gathering of sharded layers and the dense copies of them on the
CPU; restoring by subtraction, which is not exact; perturbing weights in the dtype of the forward, where most of γ·g is
rounded away; perturbing at every step for any loss when the interval is 1 (operator precedence); the reference
computed again in the second pass; unfreezing all parameters for good; the rows instead of columns of a GPT-2. γ comes
from our generator, so that a run can be repeated; its law is the same. Where several ranks share a micro-batch, ours
averages the ascent gradient over them, as FSDP does, and draws γ on each.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from steps import objective

from alignzoo import load_method
from alignzoo.data.collate import TokenBatch
from alignzoo.probe.probe import Probe
from alignzoo.report import Reporter
from alignzoo.step.context import StepContext
from alignzoo.step.setup import SetupContext
from alignzoo.testing.ranks import on_two_ranks
from alignzoo.testing.steps import context, gradients
from alignzoo.testing.tiny import cut, pair_rows, shifted, tiny_model

BETA, BETA_PRIME, MICRO_BATCHES, LR = 0.1, 1.0, 3, 0.5
HEAD = torch.randn(2, 32, generator=torch.Generator().manual_seed(5))


def exact_llama() -> Any:
    """A tiny llama in float64 throughout: the family's own norms go through float32, which leaves 1e-8 behind."""
    model = tiny_model()
    size, eps = model.config.hidden_size, model.config.rms_norm_eps

    def norm() -> torch.nn.Module:
        return torch.nn.RMSNorm(size, eps, dtype=torch.float64)

    for layer in model.model.layers:
        layer.input_layernorm, layer.post_attention_layernorm = norm(), norm()
    model.model.norm = norm()
    return model


def batches_of_step(step: int) -> list[TokenBatch]:
    return cut(pair_rows(2 * MICRO_BATCHES, seed=200 + step), 2)


def sequence_logps(model: Any, batch: TokenBatch) -> torch.Tensor:
    """Summed log-probs of the responses of all rows."""
    logits = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
    logps = logits[:, :-1].log_softmax(-1).gather(-1, batch.input_ids[:, 1:, None])[..., 0]
    return (logps * batch.response_mask[:, 1:]).sum(-1)


def loss_of(model: Any, reference: Any, batch: TokenBatch, robust: bool) -> torch.Tensor:
    """DPO's mean over the pairs of one micro-batch, or −β′·log of the mean of exp(−ℓ/β′)."""
    policy = sequence_logps(model, batch)
    with torch.no_grad():
        frozen = sequence_logps(reference, batch)
    ratios = policy - frozen
    losses = -torch.nn.functional.logsigmoid(BETA * (ratios[0::2] - ratios[1::2]))
    return -BETA_PRIME * torch.log(torch.exp(-losses / BETA_PRIME).mean()) if robust else losses.mean()


def anti_toxic_columns(model: Any, share: float) -> list[torch.Tensor]:
    """For each layer, the columns of its down projection that are selected."""
    toxic = (HEAD[1] - HEAD[0]).double()
    scored = []
    for number, layer in enumerate(model.model.layers):
        weight = layer.mlp.down_proj.weight.detach().double()
        for column in range(weight.shape[1]):
            vector = weight[:, column]
            scored.append((float(vector @ toxic / (vector.norm() * toxic.norm())), number, column))
    scored.sort()
    first = scored[: int(share * len(scored))]
    return [
        torch.tensor(sorted(column for _, layer, column in first if layer == number), dtype=torch.long)
        for number in range(len(model.model.layers))
    ]


def released_step(
    model: Any,
    reference: Any,
    step: int,
    batches: Sequence[Sequence[TokenBatch]],
    columns: list[torch.Tensor],
    gammas: Sequence[Sequence[float]],
    *,
    robust: bool = False,
) -> dict[str, torch.Tensor]:
    """The gradients of one optimizer step; batches and γ by micro-batch and rank."""
    total = {name: torch.zeros_like(parameter) for name, parameter in model.named_parameters()}
    weights = [layer.mlp.down_proj.weight for layer in model.model.layers]
    initial = [weight.detach().clone() for weight in weights]
    for of_ranks, drawn in zip(batches, gammas, strict=True):
        ranks = len(of_ranks)
        model.zero_grad()
        sum(loss_of(model, reference, batch, robust) / ranks for batch in of_ranks).backward()  # type: ignore[union-attr]
        ascent = [weight.grad[:, index].clone() for weight, index in zip(weights, columns, strict=True)]
        for batch, gamma in zip(of_ranks, drawn, strict=True):
            if (step + 1) % 5 == 0:
                with torch.no_grad():
                    for weight, index, gradient in zip(weights, columns, ascent, strict=True):
                        weight[:, index] += gamma * gradient
            model.zero_grad()
            loss_of(model, reference, batch, robust).backward()
            with torch.no_grad():
                for weight, value in zip(weights, initial, strict=True):
                    weight.copy_(value)
            for name, parameter in model.named_parameters():
                total[name] += parameter.grad / (ranks * len(batches))
    model.zero_grad()
    return total


def descend(model: Any, gradients: dict[str, torch.Tensor]) -> None:
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter -= LR * gradients[name]


def official(model: Any, share: float = 0.01, scale: float = 1.0) -> Any:
    """The controller as the preset has it but for the share and γ, which may be made visible."""
    given: dict[str, Any] = {"preset": "official"}
    given |= {"share": share} if share != 0.01 else {}
    given |= {"gamma_min": 2e-6 * scale, "gamma_max": 4e-6 * scale} if scale != 1 else {}
    shapo = load_method("geometry", "shapo-token", **given)
    probe = Probe(HEAD, torch.zeros(2), {})
    shapo.setup(SetupContext(model, seed=0, report=Reporter(), probe=lambda folder: probe))
    return shapo


def gammas_of(ctx: StepContext, scale: float) -> list[float]:
    """What this rank draws for its micro-batches."""
    draws = [torch.rand((), generator=part.generator("gamma", per_rank=True)) for part in ctx.parts()]
    return [2e-6 * scale * (1 + float(draw)) for draw in draws]


@pytest.mark.parametrize(
    ("share", "scale", "robust"),
    [(0.02, 1.0, False), (0.2, 1.0, True), (0.2, 1e6, False), (0.2, 1e6, True)],
    ids=["one neuron", "more neurons, drdpo", "γ of order 1", "γ of order 1, drdpo"],
)
def test_the_official_preset_is_the_released_arithmetic(share: float, scale: float, robust: bool) -> None:
    """Plain and perturbed steps with updates between them, every gradient to 1e-9; with γ made visible as well as with
    the paper's."""
    ours, theirs = exact_llama(), exact_llama()
    reference, goal = shifted(ours), objective("dpo", *["drdpo"] * robust)
    shapo = official(ours, share, scale)
    columns = anti_toxic_columns(theirs, share)
    drawn = []
    for step in (3, 4, 8, 9):
        ctx = context(ours, batches_of_step(step), goal, reference=reference, step=step)
        gammas = gammas_of(ctx, scale)
        shapo.step(ctx)
        found = {name: parameter.grad.clone() for name, parameter in ours.named_parameters()}
        ours.zero_grad()
        before = copy.deepcopy(theirs.state_dict())
        batches = [[batch] for batch in batches_of_step(step)]
        alone = [[gamma] for gamma in gammas]
        expected = released_step(theirs, reference, step, batches, columns, alone, robust=robust)
        assert all(torch.equal(value, before[name]) for name, value in theirs.state_dict().items())
        for name, gradient in expected.items():
            torch.testing.assert_close(found[name], gradient, rtol=1e-9, atol=1e-12)
        if (step + 1) % 5 == 0:
            drawn += gammas
            assert ctx.metrics["geometry/radius"] > 0
            plain = released_step(theirs, reference, 0, batches, columns, alone, robust=robust)
            apart = max(float((plain[name] - expected[name]).abs().max()) for name in plain)
            assert apart > 1e-11 * scale**0.5, "the perturbation is too small for this test to see it"
        else:
            assert not ctx.metrics
        descend(ours, found)
        descend(theirs, expected)
    assert len(set(drawn)) == 2 * MICRO_BATCHES, "a γ for each micro-batch"
    assert all(2e-6 * scale <= gamma <= 4e-6 * scale for gamma in drawn)


def batches_of_rank(step: int, rank: int) -> list[TokenBatch]:
    return cut(pair_rows(2 * MICRO_BATCHES, seed=300 + 10 * step + rank), 2)


def official_steps_of_this_rank(steps: Sequence[int]) -> list[tuple[dict[str, torch.Tensor], list[float]]]:
    """The gradients that these steps leave under Dr. DPO, and the γ that this rank drew for them."""
    model, accelerator = exact_llama(), Accelerator(cpu=True)
    reference, shapo = shifted(model), official(model, 0.2, 1e6)
    prepared, goal = accelerator.prepare_model(model), objective("dpo", "drdpo")
    taken = []
    for step in steps:
        batches = batches_of_rank(step, accelerator.process_index)
        ctx = context(prepared, batches, goal, reference=reference, step=step)
        shapo.step(ctx)
        taken.append((gradients(model), gammas_of(ctx, 1e6)))
    return taken


def test_the_official_preset_is_the_released_arithmetic_on_every_rank() -> None:
    """A plain and a perturbed step on two ranks: Dr. DPO couples the pairs of a micro-batch on its rank alone."""
    steps = (3, 4)
    first, second = on_two_ranks(official_steps_of_this_rank, steps, modules=[__name__])
    model = exact_llama()
    reference, columns = shifted(model), anti_toxic_columns(model, 0.2)
    for step, (found, ours), (also, theirs) in zip(steps, first, second, strict=True):
        batches = list(zip(*(batches_of_rank(step, rank) for rank in (0, 1)), strict=True))
        gammas = list(zip(ours, theirs, strict=True))
        for name, gradient in released_step(model, reference, step, batches, columns, gammas, robust=True).items():
            torch.testing.assert_close(found[name], gradient, rtol=1e-9, atol=1e-12)
            torch.testing.assert_close(also[name], gradient, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("preset", "per_rank"), [("official", True), ("default", False)])
def test_each_rank_draws_a_gamma_of_its_own_only_per_micro_batch(preset: str, per_rank: bool) -> None:
    asked = []

    class Drawing:
        def generator(self, purpose: str, *, per_rank: bool = False) -> torch.Generator:
            asked.append((purpose, per_rank))
            return torch.Generator().manual_seed(0)

    shapo = load_method("geometry", "shapo-token", preset=preset, select="random", radius="raw")
    shapo._factor(1.0, 1.0, Drawing())
    assert asked == [("gamma", per_rank)]
