"""Every aggregation: what it equals, alone and under losses. The contract that all methods keep is in tests/testing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from golden import golden_responses
from trl_dpo import step_of_trl

from alignzoo import load_method
from alignzoo.contract.responses import ResponseBatch
from alignzoo.objective.objective import Objective
from alignzoo.objective.terms import Aggregating, Term
from alignzoo.testing.sample import sample, sample_of

DPO_NORM = (0.336365, 1.165358, 0.379294, 0.224154)
"""DPO on means per token, β = 5, of the golden pairs."""


def under(name: str, loss: str, options: dict[str, Any] | None = None, **loss_options: Any) -> Objective:
    """A loss under an aggregation."""
    aggregating = Aggregating(name, load_method("aggregation", name, **(options or {})))
    return Objective([Term(load_method("loss", loss, **loss_options), aggregation=aggregating)])


def of_policy(name: str, responses: ResponseBatch, **options: Any) -> torch.Tensor:
    found: torch.Tensor = load_method("aggregation", name, **options)(responses.logps, responses.token_logps, responses)
    return found


def test_sum_and_mean_are_of_the_tokens() -> None:
    responses = ResponseBatch.of_pairs(sample())
    assert responses.token_logps is not None
    assert responses.token_mask is not None
    tokens = responses.token_logps.clone().requires_grad_(True)
    given = replace(responses, token_logps=tokens, logps=tokens.sum(-1))
    for name, expected in (("sum", responses.token_mask), ("mean", responses.token_mask / responses.lengths[:, None])):
        (grad,) = torch.autograd.grad(of_policy(name, given).sum(), tokens, retain_graph=True)
        torch.testing.assert_close(grad * responses.token_mask, expected, atol=1e-12, rtol=0)


def test_dpo_under_mean_has_the_golden_values_of_dpo_norm() -> None:
    values = under("mean", "dpo", beta=5.0).values(golden_responses())
    torch.testing.assert_close(values, torch.tensor(DPO_NORM, dtype=torch.float64), atol=1e-6, rtol=0)


def test_ld_with_alpha_1_is_the_sum() -> None:
    responses = ResponseBatch.of_pairs(sample())
    torch.testing.assert_close(of_policy("ld", responses, alpha=1.0), responses.logps, atol=1e-12, rtol=0)


def test_ld_with_alpha_0_cuts_all_responses_of_a_prompt_to_one_length() -> None:
    responses = sample_of("lists")
    found = of_policy("ld", responses, alpha=0.0)
    for i, prompt in enumerate(responses.prompt.tolist()):
        shortest = int(responses.lengths[responses.prompt == prompt].min())
        assert float(found[i]) == pytest.approx(float(responses.token_logps[i, :shortest].sum()), abs=1e-12)


def test_ld_leaves_a_response_that_stands_alone_and_looks_past_kl_responses() -> None:
    responses = sample_of("responses")  # one response and one KL response to each prompt, of other lengths
    torch.testing.assert_close(of_policy("ld", responses, alpha=0.0), responses.logps, atol=1e-12, rtol=0)


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_dpo_under_ld_equals_trl(alpha: float, tmp_path: Path) -> None:
    pytest.importorskip("trl")
    theirs, responses = step_of_trl(tmp_path, beta=0.3, ld_alpha=alpha)
    assert len(set(responses.lengths.tolist())) > 1, "responses of one length would not tell"
    ours = under("ld", "dpo", {"alpha": alpha}, beta=0.3).value(responses)
    assert float(ours) == pytest.approx(theirs, rel=2e-6)


@pytest.mark.parametrize("loss", ["simpo", "ipo"])
def test_a_loss_that_averages_by_itself_is_the_loss_under_mean(loss: str) -> None:
    responses = golden_responses()
    alone = load_method("loss", loss)(responses.pairs())
    torch.testing.assert_close(under("mean", loss).values(responses), alone, atol=1e-12, rtol=0)
    summed = under("sum", loss).values(responses)
    assert not torch.allclose(summed, alone), "--aggregation sum takes the mean's place"


def test_logged_rewards_are_those_of_the_aggregated_pairs() -> None:
    responses = ResponseBatch.of_pairs(sample())
    objective = under("ld", "dpo", {"alpha": 0.0}, beta=2.0)
    term = objective.preference
    chosen, rejected = term.rewards(term.view(responses))
    aggregation = load_method("aggregation", "ld", alpha=0.0)
    ratios = 2.0 * (
        aggregation(responses.logps, responses.token_logps, responses)
        - aggregation(responses.ref_logps, responses.ref_token_logps, responses)
    )
    torch.testing.assert_close((chosen, rejected), (ratios[::2], ratios[1::2]), atol=1e-12, rtol=0)
