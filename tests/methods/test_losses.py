"""Losses on pairs: what they equal. The contract that all methods keep is in tests/testing."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from golden import GOLDEN, golden_pairs

from alignzoo import list_methods, load_method
from alignzoo.contract.loss import LossCard

LOSSES = [card for card in list_methods("loss") if isinstance(card, LossCard) and card.reads == "pairs"]
each_loss = pytest.mark.parametrize("card", LOSSES, ids=lambda card: card.name)


def load(card: LossCard) -> Any:
    return load_method("loss", card.name)


@pytest.mark.parametrize(("method", "expected"), GOLDEN.items(), ids=str)
def test_losses_equal_golden_values(method: tuple[str, Any], expected: tuple[float, ...]) -> None:
    name, options = method
    losses = load_method("loss", name, **dict(options))(golden_pairs())
    torch.testing.assert_close(losses, torch.tensor(expected, dtype=torch.float64), atol=1e-6, rtol=0)


def test_every_loss_has_golden_values() -> None:
    assert {card.name for card in LOSSES} <= {name for name, _ in GOLDEN}


@each_loss
def test_a_larger_margin_never_costs_a_wrongly_ranked_pair(card: LossCard) -> None:
    base = golden_pairs().rows(torch.tensor([1]))  # the pair that is ranked wrongly
    better = replace(base, chosen_logps=base.chosen_logps + 0.5)
    assert load(card)(better) < load(card)(base)


def test_a_loss_without_its_reference_says_so() -> None:
    pairs = replace(golden_pairs(), ref_chosen_logps=None, ref_rejected_logps=None)
    with pytest.raises(ValueError, match="no reference log-probs"):
        load_method("loss", "dpo")(pairs)


def test_dpo_is_ln_2_at_the_reference() -> None:
    pairs = golden_pairs()
    same = replace(pairs, ref_chosen_logps=pairs.chosen_logps, ref_rejected_logps=pairs.rejected_logps)
    torch.testing.assert_close(
        load_method("loss", "dpo")(same), torch.full((4,), 2.0, dtype=torch.float64).log(), atol=1e-12, rtol=0
    )


def _ids(inputs: Any, row: int, *, response: bool) -> list[int]:
    """The tokens of a row of TRL's batch: those of its prompt, or of its response."""
    ids, mask = inputs["input_ids"][row], inputs["completion_mask"][row].bool()
    real = inputs["attention_mask"][row].bool()
    found: list[int] = ids[real & (mask if response else ~mask)].tolist()
    return found


@pytest.mark.parametrize(
    ("name", "options", "loss_type", "beta"),
    [
        ("dpo", {"beta": 0.3}, "sigmoid", 0.3),
        ("ipo", {"tau": 0.2, "logps": "average"}, "ipo", 0.2),
    ],
)
def test_losses_equal_trl(name: str, options: Any, loss_type: str, beta: float, tmp_path: Any) -> None:
    """TRL's own trainer computes its loss on its own batch; we compute ours on the same tokens and weights."""
    pytest.importorskip("trl")
    import copy

    from alignzoo_sandbox import MODEL_PATH, preference_rows
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import DPOConfig, DPOTrainer

    from alignzoo.logprobs.logps import padded_logps
    from alignzoo.objective.views import with_constants
    from alignzoo.testing.tiny import batch_of

    tokenizer = AutoTokenizer.from_pretrained(MODEL_PATH)
    policy = AutoModelForCausalLM.from_pretrained(MODEL_PATH, dtype=torch.float32).eval()
    reference = copy.deepcopy(policy)
    with torch.no_grad():
        generator = torch.Generator().manual_seed(0)
        for parameter in policy.parameters():
            parameter += 0.02 * parameter.std() * torch.randn(parameter.shape, generator=generator)
    columns = ("prompt", "chosen", "rejected")
    rows = [{key: row[key] for key in columns} for row in preference_rows("train", 4)]
    arguments = DPOConfig(
        output_dir=str(tmp_path), per_device_train_batch_size=4, loss_type=[loss_type], beta=beta, use_cpu=True,
        report_to="none", bf16=False, gradient_checkpointing=False, disable_dropout=True,
    )  # fmt: skip
    trainer = DPOTrainer(
        policy, reference, arguments, train_dataset=Dataset.from_list(rows), processing_class=tokenizer
    )
    inputs = next(iter(trainer.get_train_dataloader()))
    theirs = trainer._compute_loss(trainer.model, inputs, return_outputs=False)

    ours_rows = [
        {
            "row_id": i,
            "prompt_ids": _ids(inputs, i, response=False),
            "response_ids": [_ids(inputs, i, response=True), _ids(inputs, i + 4, response=True)],
        }
        for i in range(4)
    ]
    batch = batch_of(ours_rows)
    with torch.no_grad():
        responses = with_constants(padded_logps(policy, batch), batch, padded_logps(reference, batch), {})
    pairs = responses.pairs()
    ours = load_method("loss", name, **options)(pairs.to(dtype=torch.float64)).mean()
    assert float(ours) == pytest.approx(theirs.item(), rel=2e-6)


def test_simpo_equals_trl() -> None:
    pytest.importorskip("trl")
    from trl.experimental.cpo import CPOTrainer

    pairs = golden_pairs()
    settings = SimpleNamespace(
        alpha=0.0, loss_type="simpo", beta=2.5, simpo_gamma=0.75, label_smoothing=0.0,
        accelerator=SimpleNamespace(device="cpu"),
    )  # fmt: skip
    averages = pairs.chosen_logps / pairs.chosen_lengths, pairs.rejected_logps / pairs.rejected_lengths
    theirs, chosen, rejected = CPOTrainer.cpo_loss(settings, *averages)  # type: ignore[arg-type]
    ours = load_method("loss", "simpo", beta=2.5, gamma_beta_ratio=0.3)
    torch.testing.assert_close(ours(pairs), theirs, atol=1e-12, rtol=0)
    torch.testing.assert_close(ours.rewards(pairs), (chosen, rejected), atol=1e-12, rtol=0)
