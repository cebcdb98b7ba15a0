"""Sequence classifiers, such as reward models and judges: loaded as carefully as a policy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer, PreTrainedTokenizerBase

from alignzoo.data.digests import digest, tokenizer_digest
from alignzoo.errors import ModelError
from alignzoo.model.explained import explained, quiet
from alignzoo.model.load import safetensors_only
from alignzoo.model.source import full_model
from alignzoo.model.weights import config_digest, fingerprint

_UNBOUNDED = 1 << 20  # tokenizers without a limit report an absurdly large one
_HINT = "give a reward model: an AutoModelForSequenceClassification with one output"


@dataclass(frozen=True)
class Scorer:
    """A classifier in eval mode and fp32, and its own tokenizer.

    Attributes:
        longest: the most tokens it can read.
        pad_id: the id that its head treats as padding; None if its config has none.
        code: identifies its own code; empty for a model of transformers.
    """

    model: Any
    tokenizer: PreTrainedTokenizerBase
    longest: int
    pad_id: int | None
    code: str = ""

    def identity(self) -> str:
        """A content hash of the weights, the config, the model's own code, and everything in the tokenizer that affects
        ids, including the chat template."""
        model = [fingerprint(self.model), config_digest(self.model), self.code]
        return digest(model, tokenizer_digest(self.tokenizer), self.pad_id, self.longest)

    def outputs(self, sequences: Sequence[Sequence[int]]) -> list[float]:
        """The first output for each of some token sequences."""
        return [row[0] for row in self.logits(sequences)]

    @torch.no_grad()
    def logits(
        self, sequences: Sequence[Sequence[int]], segments: Sequence[Sequence[int]] | None = None
    ) -> list[list[float]]:
        """All outputs for each of some token sequences, right-padded to one batch.

        Args:
            segments: the token type of every token, for models that read pairs of texts.
        """
        device, width, pad_id = next(self.model.parameters()).device, max(map(len, sequences)), self.pad_id
        if pad_id is None:  # the head reads the last non-padding token: use an id that no sequence ends with
            ends = {one[-1] for one in sequences}
            pad_id = next(i for i in range(len(ends) + 1) if i not in ends)
            self.model.config.pad_token_id = self.model.config.get_text_config().pad_token_id = pad_id
        ids = torch.tensor([[*one, *[pad_id] * (width - len(one))] for one in sequences], device=device)
        lengths = torch.tensor([len(one) for one in sequences], device=device)
        mask = (torch.arange(width, device=device) < lengths[:, None]).long()
        more = {}
        if segments is not None:
            padded = [[*one, *[0] * (width - len(one))] for one in segments]
            more["token_type_ids"] = torch.tensor(padded, device=device)
        found: list[list[float]] = self.model(input_ids=ids, attention_mask=mask, **more).logits.double().cpu().tolist()
        return found


def check_classifier(name: str, what: str, *, trust_remote_code: bool, hint: str) -> tuple[str, Any]:
    """The path or hub id to load, and its config; no weights are read.

    Args:
        what: the classifier in messages, such as ``reward model``.

    Raises:
        ModelError: no such folder, or not a classifier.
    """
    if name.endswith(".gguf"):
        raise ModelError(f"{name} is a .gguf file", hint=hint)
    source = full_model(name, f"{what} {name}", gguf=False)
    with explained(source.path, what, expected="a sequence classifier", hint=hint), quiet():
        config = AutoConfig.from_pretrained(source.path, trust_remote_code=trust_remote_code)
    architectures = ", ".join(config.architectures or ())
    if any(word in architectures for word in ("ForCausalLM", "LMHeadModel")):
        raise ModelError(f"{name} is a language model, not a classifier ({architectures})", hint=hint)
    return source.path, config


def check_scorer(name: str, *, trust_remote_code: bool) -> str:
    """The path or hub id to load, if its config has one output; no weights are read.

    Raises:
        ModelError: no such folder, not a classifier, or another number of outputs.
    """
    path, config = check_classifier(name, "reward model", trust_remote_code=trust_remote_code, hint=_HINT)
    if config.num_labels != 1:
        labels = ", ".join(map(str, config.id2label.values()))
        raise ModelError(
            f"{name} has {config.num_labels} outputs ({labels}), but a reward model has one",
            hint="give a model trained as a reward or cost model (num_labels=1)",
        )
    return path


def load_scorer(
    path: str, *, trust_remote_code: bool, device: torch.device, what: str = "reward model", hint: str = _HINT
) -> Scorer:
    """The classifier at a path returned by :func:`check_scorer` or :func:`check_classifier`.

    Raises:
        ModelError: unreadable or incomplete weights, or no tokenizer.
    """
    with explained(path, f"tokenizer of the {what}"), quiet():
        tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=trust_remote_code)
    with explained(path, what, expected="a sequence classifier", hint=hint), quiet():
        model, loaded = AutoModelForSequenceClassification.from_pretrained(
            path,
            dtype=torch.float32,
            trust_remote_code=trust_remote_code,
            output_loading_info=True,
            **safetensors_only(),
        )
    if loaded["missing_keys"]:
        names = sorted(loaded["missing_keys"])
        raise ModelError(
            f"{path} is not a complete {what}: it lacks {', '.join(names[:3])}{', ...' if len(names) > 3 else ''}",
            hint=f"a language model without a trained score head cannot score; give the folder of the {what}",
        )
    text = model.config.get_text_config()
    limits = (getattr(text, "max_position_embeddings", None), tokenizer.model_max_length)
    longest = min(limit for limit in (*limits, _UNBOUNDED) if limit)
    code = _code_of(path, model.config) if trust_remote_code else ""
    return Scorer(model.requires_grad_(False).eval().to(device), tokenizer, longest, text.pad_token_id, code)


def _code_of(path: str, config: Any) -> str:
    """Identifies a model's own code: by content in a folder, by commit on the hub."""
    folder = Path(path)
    if not folder.is_dir():
        return str(config._commit_hash)
    return digest([(file.name, sha256(file.read_bytes()).hexdigest()) for file in sorted(folder.glob("*.py"))])
