"""Aggregations that weigh tokens: the weights they give, and what they equal in a limit."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from alignzoo import load_method
from alignzoo.contract.aggregation import TokenView
from alignzoo.contract.responses import ResponseBatch
from alignzoo.objective.terms import Aggregating, Term
from alignzoo.testing.sample import sample, sample_of

COST = (
    torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 2.0]]),
    torch.tensor([[0.5, 0.0], [0.0, 1.5], [3.0, 1.0], [-1.0, 0.2]]),
)
"""Hidden states of a response of three tokens and one of four."""
POT = {
    (0.1, 0.2): ([1.07976782, 0.92626022, 0.99397196], [1.25399384, 1.01205341, 0.17183031, 0.56212244]),
    (1.0, 0.2): ([1.04778128, 1.00744177, 0.94477695], [0.89037138, 0.82971791, 0.54283999, 0.73707071]),
    (0.02, 0.2): ([0.99223945, 0.93191302, 1.07584754], [1.27453107, 1.07584784, 0.10108994, 0.54853114]),
    (0.1, 5.0): ([1.01018184, 1.00730559, 0.98251257], [0.77725677, 0.78681763, 0.69208996, 0.74383564]),
}
"""By (ε, τ): marginals of ``ot.unbalanced.sinkhorn_unbalanced`` of POT 0.9.7 on these states with unit masses, scaled
to the shorter length; the cost as OTPO's authors scale it."""


def view(responses: ResponseBatch, *, hidden: torch.Tensor | None = None, seed: int = 0) -> TokenView:
    def generator(response: int) -> torch.Generator:
        return torch.Generator().manual_seed(1000 * seed + response)

    return TokenView(responses, torch.arange(int(responses.prompt[-1]) + 1), hidden, generator)


def weights(name: str, given: TokenView, **options: Any) -> torch.Tensor:
    found: torch.Tensor = load_method("aggregation", name, **options).token_weights(given)
    return found


def summed(name: str, responses: ResponseBatch, given: TokenView, **options: Any) -> torch.Tensor:
    method = load_method("aggregation", name, **options)
    weighed = replace(responses, token_weights=method.token_weights(given))
    found: torch.Tensor = method(responses.logps, responses.token_logps, weighed)
    return found


def of_equal_lengths() -> ResponseBatch:
    responses = ResponseBatch.of_pairs(sample())
    ones = torch.ones_like(responses.token_mask)
    tokens = responses.token_logps.masked_fill(responses.token_mask == 0, -0.7)
    return replace(responses, token_logps=tokens, token_mask=ones, logps=tokens.sum(-1), lengths=ones.sum(-1))


def states_of(responses: ResponseBatch) -> torch.Tensor:
    draw = torch.Generator().manual_seed(3)
    hidden = torch.randn(*responses.token_mask.shape, 6, generator=draw, dtype=torch.float64)
    return hidden * responses.token_mask[..., None]


def test_sampo_of_equal_lengths_is_the_sum() -> None:
    responses = of_equal_lengths()
    torch.testing.assert_close(summed("sampo", responses, view(responses)), responses.logps)


def test_sampo_leaves_a_response_that_stands_alone() -> None:
    responses = sample_of("responses")  # with a KL response of another length each
    torch.testing.assert_close(summed("sampo", responses, view(responses)), responses.logps)


def test_sampo_has_the_mean_and_size_of_a_draw_without_replacement() -> None:
    responses = sample_of("lists")
    draws = torch.stack([weights("sampo", view(responses, seed=seed)) for seed in range(2000)])
    assert set(draws.unique().tolist()) == {0.0, 1.0}
    shortest = responses.shortest()
    assert torch.equal(draws.sum(-1), shortest.expand(2000, -1))
    assert bool((draws * (1 - responses.token_mask) == 0).all())
    share = (shortest / responses.lengths)[:, None] * responses.token_mask
    torch.testing.assert_close(draws.mean(0), share, atol=0.06, rtol=0)  # five standard errors of a coin
    expected = (shortest / responses.lengths) * responses.logps
    torch.testing.assert_close((draws * responses.token_logps).sum(-1).mean(0), expected, rtol=0.03, atol=0.02)


def test_sampo_draws_for_every_response_by_itself() -> None:
    """Ten tokens of sixteen, a hundred times over: two responses with the same draw would show."""
    short, long = torch.ones(100, 10), torch.ones(100, 16)
    mask = torch.stack([torch.nn.functional.pad(short, (0, 6)), long], 1).flatten(0, 1).double()
    responses = ResponseBatch(
        logps=-mask.sum(-1),
        lengths=mask.sum(-1),
        prompt=torch.arange(100).repeat_interleave(2),
        ranks=torch.tensor([0, 1]).repeat(100),
        token_logps=-mask,
        token_mask=mask,
    )
    assert len(weights("sampo", view(responses))[1::2].unique(dim=0)) > 90


def test_policy_and_reference_have_the_same_tokens() -> None:
    """Log-probs that are equal give a log-ratio of 0, whatever the draw."""
    responses = ResponseBatch.of_pairs(sample())
    responses = replace(responses, ref_token_logps=responses.token_logps, ref_logps=responses.logps)
    given = replace(responses, token_weights=weights("sampo", view(responses)))
    term = Term(load_method("loss", "dpo"), aggregation=Aggregating("sampo", load_method("aggregation", "sampo")))
    assert torch.equal(term.aggregated(given).log_ratios(), torch.zeros(len(responses), dtype=torch.float64))
    assert not torch.equal(term.aggregated(given).logps, responses.logps)


@pytest.mark.parametrize(("epsilon", "tau"), POT)
def test_otpo_has_the_weights_of_pot(epsilon: float, tau: float) -> None:
    method = load_method("aggregation", "otpo", epsilon=epsilon, tau=tau)
    a, b = COST
    for found, expected in zip(method._weights(a, b), POT[epsilon, tau], strict=True):
        torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), atol=2e-8, rtol=0)


def test_otpo_weighs_each_response_against_the_other_of_its_pair() -> None:
    responses = ResponseBatch.of_pairs(sample())
    hidden = states_of(responses)
    found = weights("otpo", view(responses, hidden=hidden))
    torch.testing.assert_close(found.sum(-1), responses.shortest())
    assert bool((found[responses.token_mask == 0] == 0).all())
    n, m = (int(length) for length in responses.lengths[:2])
    u, v = load_method("aggregation", "otpo")._weights(hidden[0, :n], hidden[1, :m])
    torch.testing.assert_close(found[0, :n], u)
    torch.testing.assert_close(found[1, :m], v)


def test_otpo_of_even_transport_and_equal_lengths_is_the_sum() -> None:
    responses = of_equal_lengths()
    given = view(responses, hidden=states_of(responses))
    found = summed("otpo", responses, given, epsilon=1e6)
    torch.testing.assert_close(found, responses.logps, rtol=1e-5, atol=0)
    assert not torch.allclose(summed("otpo", responses, given), responses.logps, rtol=1e-3)


def test_otpo_of_a_list_is_the_mean_over_the_others() -> None:
    responses = sample_of("lists")
    hidden = states_of(responses)
    found = weights("otpo", view(responses, hidden=hidden))
    method, of = load_method("aggregation", "otpo"), [i for i, p in enumerate(responses.prompt.tolist()) if p == 1]
    lengths = responses.lengths.long().tolist()
    alone = [method._weights(hidden[of[0], : lengths[of[0]]], hidden[j, : lengths[j]])[0] for j in of[1:]]
    torch.testing.assert_close(found[of[0], : lengths[of[0]]], torch.stack(alone).mean(0))


def test_humanline_equals_clamped_log_ratios() -> None:
    responses = ResponseBatch.of_pairs(sample(spread=2.0))
    method = load_method("aggregation", "humanline")
    term = Term(load_method("loss", "dpo"), aggregation=Aggregating("humanline", method))
    tokens = responses.token_logps.clone().requires_grad_(True)
    found = term.aggregated(replace(responses, token_logps=tokens))
    ratios = responses.token_logps - responses.ref_token_logps
    torch.testing.assert_close(found.log_ratios(), ratios.clamp(-1.0, 1.5).sum(-1))
    torch.testing.assert_close(found.ref_logps, responses.ref_logps)
    (gradient,) = torch.autograd.grad(found.log_ratios().sum(), tokens)
    inside = ((ratios > -1.0) & (ratios < 1.5)).double()
    assert 0 < inside.mean() < 1
    assert torch.equal(gradient, inside)


def test_humanline_with_wide_bounds_is_the_sum() -> None:
    responses = ResponseBatch.of_pairs(sample())
    method = load_method("aggregation", "humanline", log_epsilon_p=-100.0, log_epsilon_r=100.0)
    torch.testing.assert_close(method(responses.logps, responses.token_logps, responses), responses.logps)


TIS = torch.tensor([[0.5, -2.0, 3.0, 0.1, -0.4]], dtype=torch.float64)
"""Log-ratios of a guide to a contrast model."""


@pytest.mark.parametrize(
    ("transform", "expected"),
    [("rank", [1.15, 0.7, 1.3, 1.0, 0.85]), ("clip-scale", [1.1, 0.7, 1.3, 1.02, 0.92])],
)
def test_tis_dpo_has_the_golden_weights(transform: str, expected: list[float]) -> None:
    method = load_method("aggregation", "tis-dpo", transform=transform)
    ones = torch.ones(1, 1, dtype=torch.float64)
    found = method.transform(TIS, ones, torch.ones_like(TIS))
    torch.testing.assert_close(found, torch.tensor([expected], dtype=torch.float64), atol=1e-12, rtol=0)
    # In a response that is not chosen, what spoke for it speaks against it; padding does not take part.
    padded = torch.nn.functional.pad(-TIS, (0, 3))
    against = method.transform(padded, -ones, (padded != 0).double())[:, :5]
    torch.testing.assert_close(against, found)


def test_tis_dpo_shares_the_ranks_of_equal_tokens() -> None:
    method, ones = load_method("aggregation", "tis-dpo"), torch.ones(1, 4, dtype=torch.float64)
    ratios = torch.tensor([[1.0, 0.0, 1.0, 2.0]], dtype=torch.float64)
    expected = torch.tensor([[1.0, 0.7, 1.0, 1.3]], dtype=torch.float64)
    torch.testing.assert_close(method.transform(ratios, ones[:, :1], ones), expected)
    torch.testing.assert_close(method.transform(ratios[:, :1], ones[:, :1], ones[:, :1]), ones[:, :1])


def test_tis_dpo_of_the_paper_is_the_exponential_of_the_clamped_ratio() -> None:
    method = load_method("aggregation", "tis-dpo", transform="exponential", mu=2.0)
    ones = torch.ones(1, 1, dtype=torch.float64)
    clamped = torch.tensor([[0.5, -0.5, 1.5, 0.1, -0.4]], dtype=torch.float64)
    torch.testing.assert_close(method.transform(TIS, ones, torch.ones_like(TIS)), (2 * clamped).exp())
    torch.testing.assert_close(method.transform(TIS, -ones, torch.ones_like(TIS)), (-2 * clamped).exp())


def test_tis_dpo_with_weights_of_1_is_the_sum() -> None:
    responses = ResponseBatch.of_pairs(sample())
    found = summed("tis-dpo", responses, view(responses), low=1.0, high=1.0)
    torch.testing.assert_close(found, responses.logps)


def test_tis_dpo_weighs_chosen_and_rejected_the_opposite_way() -> None:
    responses = ResponseBatch.of_pairs(sample())
    found = weights("tis-dpo", view(responses), transform="clip-scale")
    ratios = (responses.guide_tokens - responses.contrast_tokens).clamp(-1.5, 1.5)
    signs = torch.tensor([1.0, -1.0], dtype=torch.float64).repeat(8)[:, None]
    torch.testing.assert_close(found, (1 + 0.2 * signs * ratios) * responses.token_mask)
