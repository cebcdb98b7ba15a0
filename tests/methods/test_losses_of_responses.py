"""Losses that read responses, lists or chosen ones: what they equal."""

from __future__ import annotations

import copy
import itertools
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from golden import golden_pairs, golden_responses
from hypothesis import given
from hypothesis import strategies as st

from alignzoo import load_method
from alignzoo.contract.responses import KL, ResponseBatch


def column(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def with_kl(responses: ResponseBatch, log_ratios: list[float]) -> ResponseBatch:
    """The responses with KL responses of these log-ratios behind them, all to the last prompt."""
    ratios, count = column(*log_ratios), len(log_ratios)
    mismatched = ResponseBatch(
        logps=ratios - 7,
        lengths=torch.full_like(ratios, 5),
        prompt=torch.full((count,), int(responses.prompt[-1])),
        ref_logps=torch.full_like(ratios, -7),
        labels=torch.zeros(count, dtype=torch.long),
        ranks=torch.full((count,), -1),
        roles=torch.full((count,), KL),
    )
    roles = torch.zeros(len(responses), dtype=torch.long)
    own = replace(responses, roles=roles, paired=False)
    joined = ResponseBatch.cat([own, mismatched])
    return replace(joined, prompt=torch.cat([own.prompt, mismatched.prompt]))


def unpaired(side: str, label: int) -> ResponseBatch:
    """One side of the golden pairs, each a prompt of its own with this label."""
    pairs = golden_pairs()
    return ResponseBatch(
        logps=getattr(pairs, f"{side}_logps"),
        lengths=getattr(pairs, f"{side}_lengths"),
        prompt=torch.arange(4),
        ref_logps=getattr(pairs, f"ref_{side}_logps"),
        labels=torch.full((4,), label),
        ranks=torch.full((4,), -1),
    )


def ranked(scores: list[list[float]], beta: float) -> ResponseBatch:
    """Lists whose responses, best first, have these scores β·(log π − log π_ref)."""
    flat = column(*itertools.chain.from_iterable(scores))
    sizes = torch.tensor([len(of_prompt) for of_prompt in scores])
    return ResponseBatch(
        logps=flat / beta - 3,
        lengths=torch.full_like(flat, 4),
        prompt=torch.repeat_interleave(torch.arange(len(scores)), sizes),
        ref_logps=torch.full_like(flat, -3),
        labels=torch.zeros(len(flat), dtype=torch.long),
        ranks=torch.cat([torch.arange(int(size)) for size in sizes]),
    )


def test_kto_equals_golden_values() -> None:
    kl = [0.5, 0.5, -0.5, 1.5]
    kto = load_method("loss", "kto", beta=0.1, undesirable_weight=1.33)
    desirable = kto(with_kl(unpaired("chosen", 1), kl))
    torch.testing.assert_close(desirable, column(0.487503, 0.549834, 0.5, 0.450166), atol=1e-6, rtol=0)
    undesirable = kto(with_kl(unpaired("rejected", -1), kl))
    torch.testing.assert_close(undesirable, column(0.615218, 0.698222, 0.631778, 0.549799), atol=1e-6, rtol=0)


def test_the_kl_estimate_of_kto_is_clamped_after_the_mean_and_a_constant() -> None:
    """(−2, 1): the mean is below 0, so z₀ is 0; clamped one by one it would be ½."""
    kto = load_method("loss", "kto")
    given = with_kl(unpaired("chosen", 1), [-2.0, 1.0])
    assert float(kto.metrics(given)["kl"]) == 0.0
    torch.testing.assert_close(kto(given), torch.sigmoid(-kto.rewards(given)))
    leaf = with_kl(unpaired("chosen", 1), [2.0, 1.0]).logps.clone().requires_grad_(True)
    kto(replace(with_kl(unpaired("chosen", 1), [2.0, 1.0]), logps=leaf)).sum().backward()
    assert leaf.grad is not None
    assert leaf.grad[:4].all()
    assert not leaf.grad[4:].any()


def test_kto_of_opposite_labels_is_that_of_the_swapped_batch() -> None:
    kto, given = load_method("loss", "kto"), with_kl(unpaired("chosen", 1), [0.5])
    torch.testing.assert_close(kto(given) + kto(given.swap()), torch.ones(4, dtype=torch.float64))
    assert torch.equal(kto.rewards(given), kto.rewards(given.swap()))


@pytest.mark.parametrize(("missing", "words"), [("labels", "'labels'"), ("roles", "'mismatched'")])
def test_kto_says_what_it_lacks(missing: str, words: str) -> None:
    given = replace(with_kl(unpaired("chosen", 1), [0.5]), **{missing: None})
    with pytest.raises(ValueError, match=words):
        load_method("loss", "kto")(given)


def test_pl_dpo_equals_golden_values() -> None:
    pl = load_method("loss", "pl-dpo", beta=0.5)
    torch.testing.assert_close(pl(ranked([[0.2, -0.1, 0.3, -0.4]], 0.5)), column(2.798731), atol=1e-6, rtol=0)


LISTS = st.lists(st.lists(st.floats(-5, 5), min_size=2, max_size=6), min_size=1, max_size=4)


@given(scores=LISTS)
def test_pl_dpo_is_the_ranking(scores: list[list[float]]) -> None:
    """exp(−ℓ) is the probability to draw the responses in this order, each among those that are left by softmax(s)."""
    found = load_method("loss", "pl-dpo", beta=0.3)(ranked(scores, 0.3))
    for value, of_prompt in zip(found.tolist(), scores, strict=True):
        left, chance = list(of_prompt), 1.0
        while left:
            chance *= math.exp(left[0]) / math.fsum(map(math.exp, left))
            left.pop(0)
        assert math.exp(-value) == pytest.approx(chance, rel=1e-9)


def test_the_chances_of_all_rankings_add_up_to_one() -> None:
    pl = load_method("loss", "pl-dpo")
    orders = [list(order) for order in itertools.permutations([0.2, -0.1, 0.3, -0.4])]
    assert float(torch.exp(-pl(ranked(orders, 0.1))).sum()) == pytest.approx(1.0, rel=1e-12)


def test_pl_dpo_of_two_is_dpo() -> None:
    pl, dpo = load_method("loss", "pl-dpo", beta=0.1), load_method("loss", "dpo", beta=0.1)
    for given_ in (golden_responses(), replace(golden_responses(), paired=False)):
        torch.testing.assert_close(pl(given_), dpo(golden_pairs()), atol=0, rtol=1e-12)
        torch.testing.assert_close(pl(given_.swap()), dpo(golden_pairs().swap()), atol=0, rtol=1e-12)


@given(scores=LISTS, shift=st.floats(-50, 50), seed=st.integers(0, 99))
def test_pl_dpo_reads_ranks_and_not_places_and_only_differences(
    scores: list[list[float]], shift: float, seed: int
) -> None:
    pl, given_ = load_method("loss", "pl-dpo"), ranked(scores, 0.1)
    shuffled = torch.randperm(len(given_), generator=torch.Generator().manual_seed(seed))
    shuffled = shuffled[torch.argsort(given_.prompt[shuffled], stable=True)]  # within prompts
    torch.testing.assert_close(pl(given_.rows(shuffled)), pl(given_))
    moved = replace(given_, logps=given_.logps + shift)
    torch.testing.assert_close(pl(moved), pl(given_), rtol=1e-6, atol=1e-9)
    at_zero = pl(replace(given_, logps=given_.ref_logps))  # type: ignore[arg-type]
    torch.testing.assert_close(at_zero, column(*(math.lgamma(len(of_prompt) + 1) for of_prompt in scores)))


def test_pl_dpo_has_finite_gradients_where_lists_differ_in_length() -> None:
    given_ = ranked([[1.0, 0.5], [4000.0, -4000.0, 0.0, 3.0], [-5000.0, 5000.0, 1.0]], 0.1)
    leaf = given_.logps.clone().requires_grad_(True)
    load_method("loss", "pl-dpo")(replace(given_, logps=leaf)).sum().backward()
    assert leaf.grad is not None
    assert torch.isfinite(leaf.grad).all()


def test_sft_equals_golden_values() -> None:
    chosen = unpaired("chosen", 1)
    torch.testing.assert_close(load_method("loss", "sft")(chosen), column(12, 30.5, 8.25, 20))
    by_token = load_method("loss", "sft", mean="tokens")(chosen)
    assert float(by_token.mean()) == pytest.approx((12 + 30.5 + 8.25 + 20) / (10 + 20 + 6 + 16), rel=1e-12)


def test_sft_of_tokens_refuses_log_probs_that_are_no_sums() -> None:
    with pytest.raises(ValueError, match="not aggregation 'mean'"):
        load_method("loss", "sft", mean="tokens")(replace(unpaired("chosen", 1), aggregation="mean"))


def test_sft_equals_transformers() -> None:
    """Its language-modelling loss on the chosen responses, the mean over all their tokens."""
    from alignzoo.logprobs.logps import padded_logps
    from alignzoo.objective.objective import Objective
    from alignzoo.objective.terms import Term
    from alignzoo.testing.tiny import batch_of, pair_rows, tiny_model

    model, batch = tiny_model(), batch_of(pair_rows(5, seed=3))
    sft = Term(load_method("loss", "sft", mean="tokens"), "sft", "chosen", coupled=True)
    ours = Objective([sft]).value(padded_logps(model, batch))
    chosen = slice(0, None, 2)
    labels = batch.input_ids[chosen].masked_fill(~batch.response_mask[chosen], -100)
    inputs = {"input_ids": batch.input_ids[chosen], "attention_mask": batch.attention_mask[chosen]}
    theirs = model(**inputs, labels=labels).loss
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-6)  # theirs is fp32


def trl_trainer(tmp_path: Any, policy: Any, reference: Any, tokenizer: Any, **options: Any) -> Any:
    """TRL's own trainer on eight unpaired rows of the sandbox."""
    from alignzoo_sandbox import preference_rows
    from datasets import Dataset
    from trl import KTOConfig, KTOTrainer

    rows = [
        {"prompt": row["prompt"], "completion": row["chosen" if i % 3 else "rejected"], "label": bool(i % 3)}
        for i, row in enumerate(preference_rows("train", 8))
    ]
    arguments = KTOConfig(
        output_dir=str(tmp_path), per_device_train_batch_size=8, use_cpu=True, report_to="none", bf16=False,
        gradient_checkpointing=False, disable_dropout=True, **options,
    )  # fmt: skip
    return KTOTrainer(policy, reference, arguments, train_dataset=Dataset.from_list(rows), processing_class=tokenizer)


def test_kto_equals_trl(tmp_path: Any) -> None:
    """TRL's own trainer computes its loss on its own batch; we compute ours on the same tokens and weights: the values
    and the gradients of all weights agree."""
    pytest.importorskip("trl")
    from alignzoo_sandbox import MODEL_PATH
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from alignzoo.logprobs.logps import padded_logps
    from alignzoo.objective.views import with_constants
    from alignzoo.testing.tiny import batch_of

    tokenizer = AutoTokenizer.from_pretrained(MODEL_PATH)
    policy = AutoModelForCausalLM.from_pretrained(MODEL_PATH, dtype=torch.float32).eval()
    reference = copy.deepcopy(policy)
    with torch.no_grad():
        generator = torch.Generator().manual_seed(0)
        for parameter in policy.parameters():
            parameter += 0.05 * parameter.std() * torch.randn(parameter.shape, generator=generator)
    options = {"beta": 0.2, "desirable_weight": 0.9, "undesirable_weight": 1.3}
    trainer = trl_trainer(tmp_path, policy, reference, tokenizer, **options)
    inputs = next(iter(trainer.get_train_dataloader()))
    theirs = trainer._compute_loss(trainer.model, inputs, return_outputs=False)
    theirs.backward()
    expected = {name: p.grad.clone() for name, p in policy.named_parameters() if p.grad is not None}
    policy.zero_grad()

    def tokens(prefix: str, row: int, *, response: bool) -> list[int]:
        mask = inputs[f"{prefix}completion_mask"][row].bool()
        real = inputs[f"{prefix}attention_mask"][row].bool()
        found: list[int] = inputs[f"{prefix}input_ids"][row][real & (mask if response else ~mask)].tolist()
        return found

    rows = [
        {
            "row_id": i,
            "prompt_ids": tokens("", i, response=False),
            "response_ids": [tokens("", i, response=True)],
            "label": 1 if inputs["label"][i] else -1,
        }
        for i in range(8)
    ]
    batch = batch_of(rows, shape="unpaired", kl=[[tokens("KL_", i, response=True)] for i in range(8)])
    with torch.no_grad():
        frozen = padded_logps(reference, batch)
    kto, given_ = load_method("loss", "kto", **options), with_constants(padded_logps(policy, batch), batch, frozen, {})
    ours = kto(given_).mean()
    assert float(kto.metrics(given_)["kl"]) > 0
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-6)
    ours.backward()
    found = {name: p.grad for name, p in policy.named_parameters() if p.grad is not None}
    assert found.keys() == expected.keys()
    scale = max(float(gradient.abs().max()) for gradient in expected.values())
    for name, gradient in expected.items():
        assert float((found[name] - gradient).abs().max()) <= 1e-6 * max(scale, 1.0), name
