"""Imitation and unlearning: gradients and limits. SFT is in test_losses_of_responses.py, authors in tests/oracles."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from golden import golden_pairs, golden_responses

from alignzoo import load_method
from alignzoo.contract.responses import ResponseBatch
from alignzoo.testing.sample import sample_of

close = torch.testing.assert_close
LOSS_OF_REJECTED = (1.896308, 4.547484, 2.303758, 0.805653)
"""−(2/β)·log σ(−β·b) of the golden pairs' rejected responses, β = 0.5."""


def test_npo_lowers_the_rejected_responses_of_pairs() -> None:
    values = load_method("loss", "npo", beta=0.5)(golden_responses())
    close(values[1::2], torch.tensor(LOSS_OF_REJECTED, dtype=torch.float64), atol=1e-6, rtol=0)
    assert not values[::2].any(), "chosen responses cost nothing"


def test_npo_lowers_the_undesirable_responses_of_unpaired_data() -> None:
    rejected = golden_responses().rows(torch.tensor([1, 3, 5, 7]))
    alone = replace(rejected, prompt=torch.arange(4), ranks=torch.full((4,), -1))
    values = load_method("loss", "npo", beta=0.5)(alone)
    close(values, torch.tensor(LOSS_OF_REJECTED, dtype=torch.float64), atol=1e-6, rtol=0)
    assert not load_method("loss", "npo")(alone.swap()).any()


def test_npo_is_dpo_without_a_chosen_response() -> None:
    pairs = golden_pairs()
    still = replace(pairs, chosen_logps=pairs.ref_chosen_logps)  # type: ignore[arg-type]
    dpo = load_method("loss", "dpo", beta=0.4)(still)
    close(load_method("loss", "npo", beta=0.4)(golden_responses())[1::2], dpo * 2 / 0.4)


def test_npo_of_small_beta_is_gradient_ascent() -> None:
    """d/d log π → 1: the gradient of the log-likelihood, which gradient ascent lowers; far below the reference, 0."""
    leaf = golden_responses().logps.clone().requires_grad_(True)
    responses = replace(golden_responses(), logps=leaf)
    (slope,) = torch.autograd.grad(load_method("loss", "npo", beta=1e-6)(responses).sum(), leaf)
    close(slope, torch.tensor([0.0, 1.0] * 4, dtype=torch.float64), atol=1e-5, rtol=0)
    unlikely = replace(golden_responses(), logps=leaf - 1000)
    (slope,) = torch.autograd.grad(load_method("loss", "npo")(unlikely).sum(), leaf)
    assert float(slope.abs().max()) < 1e-30


def test_npo_without_labels_says_so() -> None:
    with pytest.raises(ValueError, match="'labels'"):
        load_method("loss", "npo")(replace(golden_responses(), labels=None))


def slopes(responses: ResponseBatch, **options: float) -> torch.Tensor:
    """The gradient of constrained SFT by every token, ``(R, T)``."""
    assert responses.token_logps is not None
    leaf = responses.token_logps.clone().requires_grad_(True)
    loss = load_method("loss", "constrained-sft", **options)
    (found,) = torch.autograd.grad(loss(replace(responses, token_logps=leaf)).sum(), leaf)
    return found


def test_constrained_sft_starts_as_sft() -> None:
    responses = sample_of("chosen")
    assert responses.token_mask is not None
    close(slopes(replace(responses, ref_token_logps=responses.token_logps)), -responses.token_mask)
    nearly_free = slopes(responses, beta=1e-9)
    close(nearly_free, -responses.token_mask, atol=1e-6, rtol=0)


def test_constrained_sft_is_the_published_objective() -> None:
    """Token by token, with β_t of the first token, of the next four, and of the others."""
    responses = sample_of("chosen", count=4)
    logps, ref, mask = responses.token_logps, responses.ref_token_logps, responses.token_mask
    assert logps is not None
    assert ref is not None
    assert mask is not None
    beta = torch.tensor([0.5, 2.0, 2.0, 2.0, 2.0, 0.1, 0.1, 0.1, 0.1], dtype=torch.float64)
    weight = 2 * (1 - torch.sigmoid(beta * (logps - ref)))
    close(slopes(responses), -weight * mask)
    values = load_method("loss", "constrained-sft")(responses)
    close(values, (mask * 2 / beta * torch.log1p(torch.exp(beta * (ref - logps)))).sum(-1))


def test_constrained_sft_holds_back_a_first_token_that_moved() -> None:
    """A token 10 nats above the reference: at β 2 it counts no more, at β 0.1 it still does."""
    mask = torch.ones(1, 8, dtype=torch.float64)
    responses = ResponseBatch(
        logps=torch.tensor([-8.0]), lengths=mask.sum(-1), prompt=torch.tensor([0]), token_logps=-mask,
        ref_token_logps=-11 * mask, ref_logps=torch.tensor([-88.0]), token_mask=mask,
    )  # fmt: skip
    (slope,) = slopes(responses)
    assert bool((slope[1:5].abs() < 1e-8).all())
    assert bool((slope[5:].abs() > 0.5).all())


def test_constrained_sft_without_tokens_says_so() -> None:
    with pytest.raises(ValueError, match="'token-logps'"):
        load_method("loss", "constrained-sft")(replace(sample_of("chosen"), token_logps=None))
