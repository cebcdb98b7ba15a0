"""The settings of a run that belong to no method. One field each: type, bounds, default, help and flag."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from alignzoo.contract.values import Values

EMBEDDED = "sandbox"
"""The model and data of a run that names neither, and the recipe below its other words; alignzoo's own plugin brings
all three under this name."""
MAX_LENGTH = 1024
"""Tokens of prompt and response where nothing else is asked for; half of them may be the prompt's."""
PROBE_SHARE = 0.1
"""Share of the training prompts set aside for a safety probe where no other is asked for."""
PROBE_PAIRS = 1000
"""About how many pairs that share comes to at most, so that large data loses little."""


def _setting(default: Any, help: str, *, flag: str | None = None, metavar: str | None = None, **bounds: Any) -> Any:
    return Field(default, description=help, json_schema_extra={"flag": flag, "metavar": metavar}, **bounds)


class Settings(Values):
    """Everything a run needs besides its methods. ``data_split`` is ``--data.split``, ``max_steps`` ``--max-steps``."""

    model: str = _setting(
        EMBEDDED, f"hub id, local folder, .gguf file, or a plugin's, such as `{EMBEDDED}`", metavar="MODEL"
    )
    data: str = _setting(
        EMBEDDED, f"hub id, local file or folder of preferences, or a plugin's, such as `{EMBEDDED}`", metavar="DATA"
    )
    data_split: str | None = _setting(None, "split of the training data", flag="data.split", metavar="NAME")
    data_format: str | None = _setting(
        None, "layout of the data instead of the detected one", flag="data.format", metavar="FORMAT"
    )
    eval_data: str | None = _setting(
        None, "held-out data; without it a share of the training prompts is held out", metavar="DATA"
    )
    eval_data_split: str | None = _setting(None, "split of the held-out data", flag="eval-data.split", metavar="NAME")
    eval_data_format: str | None = _setting(
        None, "layout of the held-out data [default: that of --data.format]", flag="eval-data.format", metavar="FORMAT"
    )
    data_strict: bool = _setting(
        False, "refuse data with malformed rows instead of dropping and counting them", flag="data.strict"
    )
    data_workers: int | None = _setting(
        None, "processes that tokenise [default: one for little data, else up to 8]", flag="data.workers", ge=1
    )
    eval_share: float = _setting(0.05, "share of the prompts held out when there is no --eval-data", ge=0, lt=1)
    eval_pairs: int = _setting(64, "most held-out rows to evaluate on", ge=1)
    out: str | None = _setting(None, "run folder [default: runs/<methods>-<time>]", metavar="DIR")
    max_steps: int | None = _setting(None, "most optimizer steps", ge=1)
    epochs: float | None = _setting(
        None,
        "most passes over the training rows [default: 1, or as many as --max-steps takes]",
        gt=0,
        allow_inf_nan=False,
    )
    batch_size: int = _setting(32, "pairs, or other rows of the data, per optimizer step, over all ranks", ge=1)
    micro_batch_size: int = _setting(4, "pairs, or other rows of the data, per forward pass", ge=1)
    tokens_per_micro_batch: int | None = _setting(
        None,
        "most tokens per forward pass, padding included, in place of --micro-batch-size; longer rows run alone",
        ge=1,
    )
    packing: bool = _setting(True, "compute each prompt once and no padding, where the model allows it")
    activation_checkpointing: bool = _setting(
        False, "keep each layer's inputs only and compute the layer again in the backward pass"
    )
    reference_cache: bool = _setting(
        True, "compute the reference's log-probs before training, and keep them for other runs"
    )
    lr: float = _setting(1e-6, "peak learning rate", gt=0)
    optimizer: str = _setting(
        "adamw", "adamw, rmsprop, sgd, any other torch.optim class, or adamw8bit (bitsandbytes)", metavar="NAME"
    )
    weight_decay: float = _setting(0.0, "weight decay of all weights but those of one dimension (biases, norms)", ge=0)
    schedule: Literal["cosine", "linear", "constant"] = _setting("cosine", "learning rate after the warm-up")
    warmup_steps: int = _setting(10, "steps of linear warm-up; the next one is the first at the full rate", ge=0)
    max_length: int = _setting(
        MAX_LENGTH,
        "tokens of prompt and response; longer responses are cut "
        f"[default: {MAX_LENGTH}, at least twice --max-prompt-length, at most the model's positions]",
        ge=2,
    )
    max_prompt_length: int = _setting(
        MAX_LENGTH // 2,
        "tokens of the prompt; rows with longer ones are dropped "
        f"[default: {MAX_LENGTH // 2}, at most half of --max-length]",
        ge=1,
    )
    max_grad_norm: float = _setting(1.0, "clip the gradient to this norm (0: never)", ge=0)
    precision: Literal["fp32", "bf16"] = _setting("fp32", "compute dtype; weights stay fp32")
    dropout: bool = _setting(False, "keep the model's own dropout, skipped layers and router noise")
    seed: int = _setting(0, "seed of data order, dropout and all draws", ge=0)
    label_noise: float = _setting(
        0.0, "share of training rows that get the opposite label or order", ge=0, le=1, metavar="RATE"
    )
    eval_every: int = _setting(0, "evaluate every so many steps (0: before and after)", ge=0)
    save_every: int = _setting(200, "checkpoint every so many steps (0: only at the end)", ge=0)
    keep_checkpoints: int = _setting(2, "newest checkpoints to keep", ge=1)
    lora_r: int = _setting(0, "rank of a LoRA adapter (0: full fine-tuning)", flag="lora.r", ge=0, le=65536)
    lora_alpha: float = _setting(16.0, "scale of the LoRA adapter", flag="lora.alpha", gt=0)
    quantize: Literal["none", "4bit"] = _setting(
        "none", "hold the frozen base of a LoRA run in 4 bits (CUDA, bitsandbytes)"
    )
    probe_share: float | None = _setting(
        None,
        "share of the training prompts set aside for a safety probe, needed or not, so that all methods train on the "
        f"same rows (0: train on all) [default: {PROBE_SHARE:g}, of much data about {PROBE_PAIRS} rows]",
        flag="probe.share",
        ge=0,
        lt=1,
    )
    track: tuple[str, ...] = _setting((), "trackers, comma-separated: tensorboard, wandb, trackio", metavar="NAMES")
    samples: bool = _setting(
        True, f"generate answers before and after training and evaluate them, on data such as `{EMBEDDED}`"
    )
    judge: str | None = _setting(
        None, "judge of the generated answers [default: that of the data's evaluator]", metavar="NAME"
    )
    observe: tuple[str, ...] = _setting((), "observers of the run, comma-separated", metavar="NAMES")
    trust_remote_code: bool = _setting(False, "allow a model to run code from its repository")

    @field_validator("track", "observe", mode="before")
    @classmethod
    def _split_names(cls, value: Any) -> Any:
        return tuple(name.strip() for name in value.split(",") if name.strip()) if isinstance(value, str) else value

    @field_validator("track")
    @classmethod
    def _known_trackers(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        unknown = sorted(set(value) - {"tensorboard", "wandb", "trackio"})
        if unknown:
            raise ValueError(f"unknown tracker {unknown[0]!r}; known: tensorboard, wandb, trackio")
        return value

    @model_validator(mode="after")
    def _lengths_fit(self) -> Settings:
        """Of the two lengths, one that was not given yields to the other."""
        # Set past the frozen model, so that they still count as not given.
        if "max_prompt_length" not in self.model_fields_set:
            object.__setattr__(self, "max_prompt_length", min(MAX_LENGTH, self.max_length) // 2)
        elif "max_length" not in self.model_fields_set:
            object.__setattr__(self, "max_length", max(MAX_LENGTH, 2 * self.max_prompt_length))
        if self.max_prompt_length >= self.max_length:
            raise ValueError(
                f"--max-prompt-length {self.max_prompt_length} leaves no room for a response "
                f"in --max-length {self.max_length}"
            )
        return self

    @classmethod
    def flag(cls, name: str) -> str:
        """The flag of a field, without dashes in front: ``lora_r`` → ``lora.r``."""
        extra = cls.model_fields[name].json_schema_extra
        given = extra.get("flag") if isinstance(extra, dict) else None
        return str(given) if given else name.replace("_", "-")

    @classmethod
    def by_flag(cls) -> dict[str, str]:
        """Flag → field name."""
        return {cls.flag(name): name for name in cls.model_fields}
