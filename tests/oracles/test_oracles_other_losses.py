"""Losses against what their authors' functions gave, where these take more than sums or return less than values."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from recorded import oracle

from alignzoo import PairBatch, load_method
from alignzoo.contract.responses import ResponseBatch

close = torch.testing.assert_close


@pytest.mark.parametrize("name", ["sympo", "ropo"])
def test_sympo_equals_the_authors(name: str) -> None:
    """All shapes, with and without clipped rewards; and ROPO, which they re-implemented."""
    recorded = oracle(name)
    for case in recorded["cases"]:
        loss, pairs = load_method("loss", name, **case["options"]), PairBatch(**recorded["pairs"])
        close(loss(pairs), case["losses"], rtol=1e-12, atol=1e-14)
        close(loss.rewards(pairs), (case["chosen_rewards"], case["rejected_rewards"]), rtol=1e-12, atol=0)


def test_f_dpo_equals_the_authors() -> None:
    """All four divergences. The authors leave out the constant of α, and have ten digits of log 2."""
    recorded = oracle("f-dpo")
    assert {case["options"]["divergence"] for case in recorded["cases"]} == {"reverse-kl", "forward-kl", "js", "alpha"}
    for case in recorded["cases"]:
        options, pairs = case["options"], PairBatch(**recorded["pairs"])
        loss = load_method("loss", "f-dpo", **options)
        close(loss(pairs), case["losses"], rtol=1e-12, atol=1e-14)
        constant = options["beta"] / options["alpha"] if options["divergence"] == "alpha" else 0.0
        for ours, theirs in zip(loss.rewards(pairs), (case["chosen_rewards"], case["rejected_rewards"]), strict=True):
            close(ours, theirs + constant, rtol=1e-12, atol=1e-10)


@pytest.mark.parametrize("name", ["tdpo1", "tdpo2"])
def test_tdpo_equals_the_authors(name: str) -> None:
    """From the logits of both models: values, rewards and the gradient by every logit."""
    recorded = oracle(name)
    fields: dict[str, torch.Tensor] = {}
    leaves = []
    for side, given in recorded["sides"].items():
        leaves.append(given["logits"].clone().requires_grad_(True))
        labels = given["labels"][:, 1:]
        mask = (labels >= 0).double()
        policy, reference = (x[:, :-1].log_softmax(-1) for x in (leaves[-1], given["ref_logits"]))
        place = labels.clamp(min=0)[..., None]
        fields |= {
            f"{side}_logps": (policy.gather(2, place)[..., 0] * mask).sum(-1),
            f"ref_{side}_logps": (reference.gather(2, place)[..., 0] * mask).sum(-1),
            f"{side}_kls": ((reference.exp() * (reference - policy)).sum(-1) * mask).sum(-1),
            f"{side}_lengths": mask.sum(-1),
        }  # fmt: skip
    for case in recorded["cases"]:
        loss, pairs = load_method("loss", name, **case["options"]), PairBatch(**fields)
        values = loss(pairs)
        close(values, case["losses"], rtol=1e-10, atol=0)
        close(loss.rewards(pairs), (case["chosen_rewards"], case["rejected_rewards"]), rtol=1e-9, atol=1e-12)
        gradients = torch.autograd.grad(values.sum(), leaves, retain_graph=True)
        for ours, theirs in zip(gradients, (case["gradient_chosen"], case["gradient_rejected"]), strict=True):
            close(ours.norm(dim=-1), theirs, rtol=1e-9, atol=1e-12)


def test_constrained_sft_equals_the_authors() -> None:
    """The gradient by every token: they return its weights times the log-probs, not the objective."""
    recorded = oracle("constrained-sft")
    mask = recorded["token_mask"]
    for case in recorded["cases"]:
        leaf = recorded["token_logps"].clone().requires_grad_(True)
        responses = ResponseBatch(
            logps=leaf.sum(-1), lengths=mask.sum(-1), prompt=torch.arange(len(mask)), token_logps=leaf,
            token_mask=mask, ref_token_logps=recorded["ref_token_logps"], ref_logps=recorded["ref_token_logps"].sum(-1),
        )  # fmt: skip
        loss = load_method("loss", "constrained-sft", **case["options"])
        (gradient,) = torch.autograd.grad(loss(responses).sum(), leaf)
        bounded = torch.where(mask > 0, gradient.clamp(max=-1e-3), gradient)  # theirs are at least that steep
        close(bounded, case["gradient"], rtol=1e-6, atol=1e-12)  # their β of a position is of fp32


def test_npo_equals_the_code_of_door() -> None:
    recorded = oracle("npo")
    tokens = recorded["tokens"]
    for case in recorded["cases"]:
        loss = load_method("loss", "npo", **case["options"])
        assert loss(undesirable(tokens)).mean().item() == pytest.approx(float(case["value"]), rel=1e-12)


def undesirable(tokens: dict[str, torch.Tensor]) -> ResponseBatch:
    logps = tokens["policy"].sum(-1)
    return ResponseBatch(
        logps=logps, lengths=tokens["mask"].sum(-1), prompt=torch.arange(len(logps)),
        ref_logps=tokens["reference"].sum(-1), labels=torch.full((len(logps),), -1),
    )  # fmt: skip


def door_pairs(tokens: Any) -> PairBatch:
    """Pairs of a refusal and a harmful response, then the utility data as chosen responses; all others are its own."""
    fields: dict[str, torch.Tensor] = {}
    rows = {"chosen": ("refusal", "utility"), "rejected": ("harmful", "utility")}
    for side, names in rows.items():
        policy, reference, guide, mask = (
            torch.cat([tokens[name][key] for name in names]) for key in ("policy", "reference", "guide", "mask")
        )
        fields |= {
            f"{side}_logps": policy.sum(-1),
            f"ref_{side}_logps": reference.sum(-1),
            f"{side}_lengths": mask.sum(-1),
            f"{side}_token_logps": policy,
            f"ref_{side}_token_logps": reference,
            f"{side}_guide_tokens": guide,
            f"{side}_token_mask": mask,
            f"{side}_safe": torch.ones(len(mask), dtype=torch.float64),
        }
    fields["rejected_safe"][: len(tokens["harmful"]["mask"])] = 0
    return PairBatch(**fields)


def test_door_equals_the_authors() -> None:
    """Their objective adds the means of harmful and harmless data."""
    recorded = oracle("door")
    pairs = door_pairs(recorded["tokens"])
    for case in recorded["cases"]:
        harmful, harmless = load_method("loss", "door", **case["options"])(pairs).chunk(2)
        assert (harmful.mean() + harmless.mean()).item() == pytest.approx(float(case["value"]), rel=1e-12)


def test_w_door_equals_the_authors() -> None:
    """Its refusals: their code unlearns without a reference, which was taken away from the recorded value; so is ours
    here, as what is left without a token of the refusal."""
    recorded = oracle("w-door")
    pairs = door_pairs(recorded["tokens"])
    assert pairs.chosen_token_logps is not None
    silent = replace(pairs, chosen_token_logps=0 * pairs.chosen_token_logps)
    for case in recorded["cases"]:
        loss = load_method("loss", "w-door", **case["options"])
        refusals = (loss(pairs) - loss(silent)).chunk(2)[0].mean()
        assert refusals.item() == pytest.approx(float(case["refusals"]), rel=1e-9)
