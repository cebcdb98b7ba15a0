"""The steps of TRL's ``DPOTrainer``, in a process of their own; :mod:`against_trl` starts it where TRL is installed.

The trainer is given the tokens that alignzoo has, in the same order. What costs time and is no part of a step is off:
logging, saving, evaluation, progress bars. Activation checkpointing, on by default, is the job's. All else that makes a
step fast or slow is what TRL takes by default: its fused head (Triton on a GPU), ``sdpa``, padded batches (this version
switches ``padding_free`` off), fused AdamW, fp32 weights under bf16 autocast.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from measured import Clock, Job


def main() -> None:
    job, began = Job.from_command_line()
    take_steps(job, began)


def take_steps(job: Job, began: float, make_model: Callable[[], Any] | None = None) -> None:
    """Time the steps and print what was measured.

    Args:
        make_model: makes the model that is trained in place of the job's, whose folder then gives the tokenizer alone;
            where it is, the run takes place.
    """
    clock = Clock(began)
    import torch
    from datasets import Dataset
    from transformers import AutoTokenizer, TrainerCallback
    from trl import DPOConfig, DPOTrainer
    from trl.trainer import dpo_trainer

    torch.set_num_threads(job.threads)
    clock.imports_done()
    losses: list[torch.Tensor] = []
    logps: dict[str, list[float]] = {"chosen": [], "rejected": []}

    class Watch(TrainerCallback):
        def on_step_begin(self, *_arguments: Any, **_named: Any) -> None:
            clock.first_step()

        def on_step_end(self, *_arguments: Any, **_named: Any) -> None:
            clock.step_done()

    class Trainer(DPOTrainer):
        def _prepare_dataset(self, dataset: Any, *_arguments: Any) -> Any:
            return dataset  # it is tokenised

        def compute_loss(self, *arguments: Any, **named: Any) -> Any:
            loss = super().compute_loss(*arguments, **named)
            losses.append(loss.detach())
            for side, seen in logps.items():
                seen.append(self._metrics["train"][f"logps/{side}"][-1])
            return loss

    columns = json.loads(Path(job.tokens).read_text())
    count = (job.steps + 1) * job.pairs
    model = make_model() if make_model else job.model
    on_a_cpu = make_model is None or model.device.type == "cpu"
    if make_model:  # hashing the weights, to name a file with their log-probs, takes longer than all steps together
        dpo_trainer.hash_module = lambda _model: uuid.uuid4().hex
    trainer = Trainer(
        model=model,
        args=DPOConfig(
            output_dir=job.scratch,
            use_cpu=on_a_cpu,
            beta=0.1,
            per_device_train_batch_size=job.pairs,
            max_steps=job.steps + 1,
            max_length=job.max_length,
            precompute_ref_log_probs=job.cached,
            bf16=job.precision == "bf16",
            learning_rate=job.lr,
            lr_scheduler_type="constant",
            weight_decay=0.0,
            max_grad_norm=1.0,
            seed=job.seed,
            train_sampling_strategy="sequential",
            gradient_checkpointing=job.checkpointing,
            dataloader_pin_memory=not on_a_cpu,
            logging_strategy="no",
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        ),
        train_dataset=Dataset.from_dict({name: values[:count] for name, values in columns.items()}),
        processing_class=AutoTokenizer.from_pretrained(job.model),
        peft_config=_adapter(job.lora),
        callbacks=[Watch()],
    )
    trainer.train()
    clock.show(
        trainer=f"trl {version('trl')}",
        weights=sum(weight.numel() * weight.element_size() for weight in trainer.model.parameters()),
        losses=[float(loss) for loss in losses],
        **logps,
    )


def _adapter(rank: int) -> Any:
    if not rank:
        return None
    from peft import LoraConfig

    return LoraConfig(r=rank, lora_alpha=rank, target_modules="all-linear", task_type="CAUSAL_LM")


if __name__ == "__main__":
    main()
