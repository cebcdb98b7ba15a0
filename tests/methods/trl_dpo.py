"""A step of TRL's own DPO trainer on its own batch, and the same tokens and weights as alignzoo's responses."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch

from alignzoo.contract.responses import ResponseBatch


def step_of_trl(tmp_path: Path, **config: Any) -> tuple[float, ResponseBatch]:
    """TRL's loss of four pairs of the sandbox under ``DPOConfig(**config)``; and their log-probs, tokens included."""
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
        output_dir=str(tmp_path), per_device_train_batch_size=4, use_cpu=True, report_to="none", bf16=False,
        gradient_checkpointing=False, disable_dropout=True, **config,
    )  # fmt: skip
    trainer = DPOTrainer(
        policy, reference, arguments, train_dataset=Dataset.from_list(rows), processing_class=tokenizer
    )
    inputs = next(iter(trainer.get_train_dataloader()))
    theirs = trainer._compute_loss(trainer.model, inputs, return_outputs=False)
    ours = [
        {
            "row_id": i,
            "prompt_ids": _ids(inputs, i, response=False),
            "response_ids": [_ids(inputs, i, response=True), _ids(inputs, i + 4, response=True)],
        }
        for i in range(4)
    ]
    batch = batch_of(ours)
    with torch.no_grad():
        of_policy, of_reference = (padded_logps(model, batch, tokens=True) for model in (policy, reference))
    responses = with_constants(of_policy, batch, of_reference, {})
    return theirs.item(), responses.to(dtype=torch.float64)


def _ids(inputs: Any, row: int, *, response: bool) -> list[int]:
    """The tokens of a row of TRL's batch: those of its prompt, or of its response."""
    ids, mask = inputs["input_ids"][row], inputs["completion_mask"][row].bool()
    real = inputs["attention_mask"][row].bool()
    found: list[int] = ids[real & (mask if response else ~mask)].tolist()
    return found
