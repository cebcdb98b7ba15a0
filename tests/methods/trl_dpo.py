"""Steps of TRL's own trainers on their own batches, and the same tokens and weights as alignzoo's responses."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from alignzoo.contract.responses import ResponseBatch
from alignzoo.data.collate import TokenBatch
from alignzoo.objective.objective import Objective

PAIRS, RESPONSES = 4, 8
NEAR, FAR = 0.05, 0.3
"""Distances of a policy from its reference."""


@dataclass(frozen=True)
class Step:
    """What TRL's trainer makes of a batch: its loss, and the gradients of all weights of the policy.

    Attributes:
        batch: the same tokens in alignzoo's order.
    """

    value: float
    gradients: dict[str, torch.Tensor]
    policy: Any
    reference: Any
    batch: TokenBatch

    def responses(self) -> ResponseBatch:
        """The log-probs of the batch in float64, differentiable in the weights of the policy, and what the data and the
        reference add."""
        from alignzoo.logprobs.logps import padded_logps
        from alignzoo.objective.views import with_constants

        with torch.no_grad():
            frozen = padded_logps(self.reference, self.batch, tokens=True)
            collisions = _collisions(self.policy, self.batch)
        found = with_constants(padded_logps(self.policy, self.batch, tokens=True), self.batch, frozen, {})
        return replace(found, collisions=collisions).to(dtype=torch.float64)

    def equals(self, objective: Objective, *, rel: float = 2e-6) -> None:
        """Assert that the objective has TRL's value and, at every weight, TRL's gradient; TRL computes in fp32."""
        responses = self.responses()
        objective.observe(responses.detach(), coupled=True)
        value = objective.value(responses)
        assert abs(value.item() - self.value) <= rel * max(abs(self.value), 1e-3), (value.item(), self.value)
        self.policy.zero_grad()
        value.backward()
        found = {name: p.grad for name, p in self.policy.named_parameters() if p.grad is not None}
        assert found.keys() == self.gradients.keys()
        scale = max(float(gradient.abs().max()) for gradient in self.gradients.values())
        assert scale > 0
        for name, gradient in self.gradients.items():
            worst = float((found[name] - gradient).abs().max()) / scale
            assert worst <= 10 * rel, (name, worst)


def dpo_step(tmp_path: Path, **config: Any) -> Step:
    """DPOTrainer on four pairs of the sandbox under ``DPOConfig(**config)``."""
    return next(dpo_steps(tmp_path, [NEAR], **config))


def dpo_steps(tmp_path: Path, distances: Sequence[float], **config: Any) -> Iterator[Step]:
    """:func:`dpo_step` of one trainer whose policy is moved to each distance from the reference; each is read before
    the next."""
    from trl import DPOConfig, DPOTrainer

    tokenizer, policy, reference = _models()
    trainer = DPOTrainer(
        policy, reference, DPOConfig(**_arguments(tmp_path, PAIRS), **config), train_dataset=_rows(_pairs(PAIRS)),
        processing_class=tokenizer,
    )  # fmt: skip
    inputs = next(iter(trainer.get_train_dataloader()))
    batch = _batch([_row(inputs, i, [i, i + PAIRS]) for i in range(PAIRS)])
    loss = lambda: trainer._compute_loss(trainer.model, inputs, return_outputs=False)  # noqa: E731
    for distance in distances:
        policy.zero_grad()
        _move(policy, reference, distance)
        yield _step(loss, policy, reference, batch)


def kto_step(tmp_path: Path, **config: Any) -> Step:
    """KTOTrainer on eight labelled responses of the sandbox under ``KTOConfig(**config)``."""
    from trl import KTOConfig, KTOTrainer

    tokenizer, policy, reference = _models()
    rows = [
        {"prompt": row["prompt"], "completion": row["chosen" if i % 3 else "rejected"], "label": bool(i % 3)}
        for i, row in enumerate(_pairs(RESPONSES))
    ]
    trainer = KTOTrainer(
        policy, reference, KTOConfig(**_arguments(tmp_path, RESPONSES), **config), train_dataset=_rows(rows),
        processing_class=tokenizer,
    )  # fmt: skip
    inputs = next(iter(trainer.get_train_dataloader()))
    ours = [{**_row(inputs, i, [i]), "label": 1 if inputs["label"][i] else -1} for i in range(RESPONSES)]
    mismatched = "KL_input_ids" in inputs
    kl = [[_ids(inputs, i, response=True, prefix="KL_")] for i in range(RESPONSES)] if mismatched else None
    batch = _batch(ours, shape="unpaired", kl=kl)
    return _step(lambda: trainer._compute_loss(trainer.model, inputs, return_outputs=False), policy, reference, batch)


def tpo_step(tmp_path: Path, *, triples: bool = True, **config: Any) -> Step:
    """The experimental TPOTrainer on four triples of the sandbox under ``TPOConfig(**config)``; ``triples=False``:
    where the chosen response is gold as well, a batch of pairs."""
    from trl.experimental.tpo import TPOConfig, TPOTrainer

    tokenizer, policy, reference = _models()
    pairs = _pairs(2 * PAIRS)
    golds = [other["chosen"] if triples else row["chosen"] for row, other in zip(pairs, pairs[PAIRS:], strict=False)]
    rows = [{**row, "reference": gold} for row, gold in zip(pairs, golds, strict=False)]
    arguments = TPOConfig(**_arguments(tmp_path, PAIRS), **config)
    trainer = TPOTrainer(policy, arguments, train_dataset=_rows(rows), processing_class=tokenizer)
    inputs = next(iter(trainer.get_train_dataloader()))
    places = [[i + 2 * PAIRS, i, i + PAIRS] if triples else [i, i + PAIRS] for i in range(PAIRS)]
    batch = _batch([_row(inputs, i, at) for i, at in enumerate(places)], shape="ranked")
    return _step(lambda: trainer._compute_loss(trainer.model, inputs, return_outputs=False), policy, reference, batch)


def cpo_step(tmp_path: Path, **config: Any) -> Step:
    """The experimental CPOTrainer on four pairs of the sandbox under ``CPOConfig(**config)``."""
    from trl.experimental.cpo import CPOConfig, CPOTrainer

    tokenizer, policy, reference = _models()
    arguments = CPOConfig(**_arguments(tmp_path, PAIRS), **config)
    trainer = CPOTrainer(policy, arguments, train_dataset=_rows(_pairs(PAIRS)), processing_class=tokenizer)
    inputs = next(iter(trainer.get_train_dataloader()))

    def ids(side: str, i: int, *, response: bool) -> list[int]:
        real = inputs[f"{side}_attention_mask"][i].bool()
        of_response = inputs[f"{side}_labels"][i] != -100
        found: list[int] = inputs[f"{side}_input_ids"][i][real & (of_response if response else ~of_response)].tolist()
        return found

    ours = [
        {
            "row_id": i,
            "prompt_ids": ids("chosen", i, response=False),
            "response_ids": [ids(side, i, response=True) for side in ("chosen", "rejected")],
        }
        for i in range(PAIRS)
    ]
    loss = lambda: trainer.get_batch_loss_metrics(trainer.model, inputs)[0]  # noqa: E731
    return _step(loss, policy, reference, _batch(ours))


def step_of_trl(tmp_path: Path, **config: Any) -> tuple[float, ResponseBatch]:
    """The value of :func:`dpo_step`, and its responses."""
    step = dpo_step(tmp_path, **config)
    return step.value, step.responses().detach()


def _step(loss: Callable[[], torch.Tensor], policy: Any, reference: Any, batch: TokenBatch) -> Step:
    theirs = loss()
    theirs.backward()
    gradients = {name: p.grad.clone() for name, p in policy.named_parameters() if p.grad is not None}
    return Step(theirs.item(), gradients, policy, reference, batch)


def _models() -> tuple[Any, Any, Any]:
    """Tokenizer, policy and reference, which are near each other."""
    tokenizer, loaded = _loaded()
    policy, reference = copy.deepcopy(loaded), copy.deepcopy(loaded)
    _move(policy, reference, NEAR)
    return tokenizer, policy, reference


@functools.cache
def _loaded() -> tuple[Any, Any]:
    from alignzoo_sandbox import MODEL_PATH
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(MODEL_PATH, dtype=torch.float32).eval()
    return AutoTokenizer.from_pretrained(MODEL_PATH), model


def _move(policy: Any, reference: Any, distance: float) -> None:
    """Give the policy the reference's weights, each so many standard deviations of its tensor away."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for moved, weight in zip(policy.parameters(), reference.parameters(), strict=True):
            moved.copy_(weight + distance * weight.std() * torch.randn(weight.shape, generator=generator))


def _arguments(tmp_path: Path, size: int) -> dict[str, Any]:
    return {
        "output_dir": str(tmp_path), "per_device_train_batch_size": size, "use_cpu": True, "report_to": "none",
        "bf16": False, "gradient_checkpointing": False, "disable_dropout": True,
    }  # fmt: skip


def _pairs(count: int) -> list[dict[str, Any]]:
    from alignzoo_sandbox import preference_rows

    return [{key: row[key] for key in ("prompt", "chosen", "rejected")} for row in preference_rows("train", count)]


def _rows(rows: list[dict[str, Any]]) -> Any:
    from datasets import Dataset

    return Dataset.from_list(rows)


def _batch(rows: Sequence[dict[str, Any]], **how: Any) -> TokenBatch:
    from alignzoo.testing.tiny import batch_of

    return batch_of(rows, **how)


def _row(inputs: Any, prompt: int, places: Sequence[int]) -> dict[str, Any]:
    """A prompt of TRL's batch with the responses in these places."""
    responses = [_ids(inputs, place, response=True) for place in places]
    return {"row_id": prompt, "prompt_ids": _ids(inputs, prompt, response=False), "response_ids": responses}


def _ids(inputs: Any, row: int, *, response: bool, prefix: str = "") -> list[int]:
    """The tokens of a row of TRL's batch: those of its prompt, or of its response."""
    ids, mask = inputs[f"{prefix}input_ids"][row], inputs[f"{prefix}completion_mask"][row].bool()
    real = inputs[f"{prefix}attention_mask"][row].bool()
    found: list[int] = ids[real & (mask if response else ~mask)].tolist()
    return found


def _collisions(model: Any, batch: TokenBatch) -> torch.Tensor:
    """``(R,)``: Σ_t log Σ_v π(v)² over response tokens, from whole logits."""
    logits = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
    collisions = torch.logsumexp(2 * logits.double().log_softmax(-1), -1)[:, :-1]
    return (collisions * batch.response_mask[:, 1:]).sum(-1)
