"""The settings of a run that belong to no method, one field each: type, bounds, default, help and flag."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from alignzoo.contract.values import Values

EMBEDDED = "sandbox"
"""The model and data of a run that names neither, and the recipe below its other words; alignzoo's own plugin brings
all three under this name."""
MAX_LENGTH = 1024
"""Default maximum tokens of prompt + response; half of them may be the prompt's."""
TRACKERS = ("tensorboard", "wandb", "trackio", "mlflow", "swanlab")
"""Trackers of experiments that accelerate logs to."""
PROBE_SHARE = 0.1
"""Default share of training prompts set aside for a safety probe."""
PROBE_PAIRS = 1000
"""Approximate maximum number of pairs in that share, so that large data loses little."""


def _setting(default: Any, help: str, *, flag: str | None = None, metavar: str | None = None, **bounds: Any) -> Any:
    return Field(default, description=help, json_schema_extra={"flag": flag, "metavar": metavar}, **bounds)


class Settings(Values):
    """Everything a run needs besides its methods. ``data_split`` is ``--data.split``, ``max_steps`` ``--max-steps``."""

    model: str = _setting(
        EMBEDDED, f"hub id, local folder, .gguf file, or a plugin's model such as `{EMBEDDED}`", metavar="MODEL"
    )
    data: str = _setting(
        EMBEDDED, f"hub id, local file or folder, or a plugin's data such as `{EMBEDDED}`", metavar="DATA"
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
        False, "stop on malformed rows instead of dropping and counting them", flag="data.strict"
    )
    data_workers: int | None = _setting(
        None, "processes for tokenisation [default: one for small data, else up to 8]", flag="data.workers", ge=1
    )
    eval_share: float = _setting(0.05, "share of the prompts held out when there is no --eval-data", ge=0, lt=1)
    eval_pairs: int = _setting(64, "maximum number of held-out rows to evaluate on", ge=1)
    validation: bool = _setting(
        False, "for choosing options: hold out training prompts instead, and leave the data that results report unread"
    )
    out: str | None = _setting(None, "run folder [default: runs/<methods>-<time>]", metavar="DIR")
    max_steps: int | None = _setting(None, "maximum number of optimizer steps", ge=1)
    epochs: float | None = _setting(
        None,
        "maximum passes over the training rows [default: 1, or as many as --max-steps needs]",
        gt=0,
        allow_inf_nan=False,
    )
    batch_size: int = _setting(32, "pairs (or other data rows) per optimizer step, over all ranks", ge=1)
    micro_batch_size: int = _setting(4, "pairs (or other data rows) per forward pass", ge=1)
    tokens_per_micro_batch: int | None = _setting(
        None,
        "maximum tokens per forward pass, including padding, instead of --micro-batch-size; longer rows run alone",
        ge=1,
    )
    packing: bool = _setting(True, "process each prompt once, without padding, if the model allows it")
    activation_checkpointing: bool = _setting(False, "recompute activations in the backward pass to save memory")
    activation_offloading: bool = _setting(
        False, "keep activations in the host's memory until the backward pass (CUDA), to save memory"
    )
    compile: bool = _setting(False, "compile each layer of the policy (torch.compile), once for all lengths of rows")
    offload: Literal["none", "weights"] = _setting(
        "none", "keep weights, gradients and optimizer state of an FSDP2 run in host memory"
    )
    reference_cache: bool = _setting(True, "compute reference log-probs before training, and cache them for other runs")
    guide: str | None = _setting(
        None, "frozen model that likes what is preferred, for methods that read its log-probs", metavar="MODEL"
    )
    contrast: str | None = _setting(
        None, "frozen model that likes what is not, for methods that read its log-probs", metavar="MODEL"
    )
    lr: float = _setting(1e-6, "peak learning rate", gt=0)
    optimizer: str = _setting(
        "adamw", "adamw, rmsprop, sgd, any other torch.optim class, or adamw8bit (bitsandbytes)", metavar="NAME"
    )
    weight_decay: float = _setting(0.0, "weight decay, except for 1-d weights (biases, norms)", ge=0)
    schedule: Literal["cosine", "linear", "constant"] = _setting("cosine", "learning-rate schedule after the warm-up")
    warmup_steps: int = _setting(10, "steps of linear warm-up, after which the full rate is reached", ge=0)
    max_length: int = _setting(
        MAX_LENGTH,
        "maximum tokens of prompt + response; longer responses are truncated "
        f"[default: {MAX_LENGTH}, at least twice --max-prompt-length, at most the model's positions]",
        ge=2,
    )
    max_prompt_length: int = _setting(
        MAX_LENGTH // 2,
        "maximum tokens of the prompt; rows with longer ones are dropped "
        f"[default: {MAX_LENGTH // 2}, at most half of --max-length]",
        ge=1,
    )
    max_grad_norm: float = _setting(1.0, "clip the gradient to this norm (0: no clipping)", ge=0)
    precision: Literal["auto", "fp32", "bf16"] = _setting(
        "auto",
        "compute dtype; trained weights stay fp32 (chat, generate and eval cast theirs) [default: auto, bf16 on a GPU "
        "that has it natively if no method needs fp32, else fp32]",
    )
    weights: Literal["auto", "fp32", "bf16"] = _setting(
        "auto",
        "dtype in which the frozen weights under an adapter are kept [default: auto, bf16 in a LoRA run with "
        "--precision bf16, else fp32]",
    )
    dropout: bool = _setting(False, "keep the model's own dropout, layer skipping and router noise")
    seed: int = _setting(0, "seed of data order, dropout and all random draws", ge=0)
    label_noise: float = _setting(
        0.0, "share of training rows to give the opposite label or order", ge=0, le=1, metavar="RATE"
    )
    eval_every: int = _setting(0, "steps between evaluations (0: only before and after training)", ge=0)
    save_every: int = _setting(200, "steps between checkpoints (0: only at the end)", ge=0)
    keep_checkpoints: int = _setting(2, "number of newest checkpoints to keep", ge=1)
    save_model: bool = _setting(
        True, "keep the trained model and its checkpoints (without, a finished run has only its figures)"
    )
    lora_r: int = _setting(0, "rank of a LoRA adapter (0: full fine-tuning)", flag="lora.r", ge=0, le=65536)
    lora_alpha: float = _setting(16.0, "scale of the LoRA adapter", flag="lora.alpha", gt=0)
    quantize: Literal["none", "4bit"] = _setting(
        "none", "quantise the frozen base of a LoRA run to 4 bits (CUDA, bitsandbytes)"
    )
    probe_share: float | None = _setting(
        None,
        "share of training prompts set aside for a safety probe, needed or not, so that all methods train on the "
        f"same rows (0: train on all) [default: {PROBE_SHARE:g}, at most about {PROBE_PAIRS} rows]",
        flag="probe.share",
        ge=0,
        lt=1,
    )
    track: tuple[str, ...] = _setting((), f"trackers, comma-separated: {', '.join(TRACKERS)}", metavar="NAMES")
    samples: bool = _setting(
        True, f"generate and evaluate answers before and after training, on data such as `{EMBEDDED}`"
    )
    eval_suite: tuple[str, ...] = _setting(
        (),
        "suites of prompts to answer and judge before, after and every --eval-every; `alignzoo suites` lists them",
        metavar="NAMES",
    )
    eval_suite_limit: int | None = _setting(None, "prompts of each suite [default: all]", flag="eval-suite.limit", ge=1)
    eval_suite_max_new_tokens: int | None = _setting(
        None, "maximum tokens of a response [default: the suite's]", flag="eval-suite.max-new-tokens", ge=1
    )
    eval_suite_data: str | None = _setting(
        None, "folder with local copies of the suites' data", flag="eval-suite.data-dir", metavar="DIR"
    )
    show_samples: int = _setting(
        0, "print and log the responses to this many fixed held-out prompts at each evaluation", ge=0
    )
    observe: tuple[str, ...] = _setting((), "observers of the run, comma-separated", metavar="NAMES")
    trust_remote_code: bool = _setting(False, "allow models to run code from their repositories")

    @field_validator("track", "observe", "eval_suite", mode="before")
    @classmethod
    def _split_names(cls, value: Any) -> Any:
        return tuple(name.strip() for name in value.split(",") if name.strip()) if isinstance(value, str) else value

    @field_validator("track")
    @classmethod
    def _known_trackers(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        unknown = sorted(set(value) - set(TRACKERS))
        if unknown:
            raise ValueError(f"unknown tracker {unknown[0]!r}; known: {', '.join(TRACKERS)}")
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
