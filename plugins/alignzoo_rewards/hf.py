"""A reward or cost model from the Hugging Face hub or a folder.

    s(x, y) = sign · f(x, y)

f is the single output of a sequence classifier on the conversation in *its own* chat template, independent of the
policy's; without a template, on prompt and reply as plain text with its tokenizer's special tokens. fp32, eval mode.
Texts longer than the model's context, or than ``max_length``, are truncated on the right.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic import Field

from alignzoo.errors import ModelError
from alignzoo.interfaces import Reward
from alignzoo.plugin import Options, RewardCard, Verified
from alignzoo_rewards.sign import Sign

if TYPE_CHECKING:
    from alignzoo.interfaces import Response, RewardContext
    from alignzoo_rewards.classifier import Scorer


class HFOptions(Options):
    """The model and how to run it."""

    model: str = Field(
        min_length=1,
        description="hub id or folder of a sequence classifier with one output",
        examples=["./reward-model"],
        json_schema_extra={"path": True},
    )
    sign: Sign = Field(1, description="1 for a reward model, -1 for a cost model")
    max_length: int | None = Field(None, ge=1, description="maximum tokens to read (default: the model's context)")
    batch_size: int = Field(16, ge=1, description="responses per forward pass", json_schema_extra={"cost": True})


class HF(Reward):
    """The output of a sequence classifier."""

    options: HFOptions

    def setup(self, run: RewardContext) -> None:
        """Find the model; its weights load on first use.

        Raises:
            ModelError: there is none, or it is not a classifier with one output.
        """
        from alignzoo_rewards.classifier import check_scorer

        self.run = run
        self.path = check_scorer(self.options.model, trust_remote_code=run.trust_remote_code)
        self._loaded: Scorer | None = None
        self._said_cut = False

    def identity(self) -> str:
        return self._scorer().identity()

    def scores(self, responses: Sequence[Response]) -> Sequence[float]:
        scorer = self._scorer()
        sequences = [self._ids(response, scorer) for response in responses]
        by_length = sorted(range(len(sequences)), key=lambda i: len(sequences[i]))
        found = [0.0] * len(sequences)
        for start in range(0, len(by_length), self.options.batch_size):
            rows = by_length[start : start + self.options.batch_size]
            for row, output in zip(rows, scorer.outputs([sequences[i] for i in rows]), strict=True):
                if not math.isfinite(output):
                    raise ModelError(
                        f"the reward model {self.options.model} returned {output} for row {responses[row].row_id}",
                        hint="check its weights and that row of the data; it runs in fp32",
                    )
                found[row] = self.options.sign * output
        return found

    def _scorer(self) -> Scorer:
        from alignzoo_rewards.classifier import load_scorer

        if self._loaded is None:
            self.run.report.note(f"loading the reward model {self.options.model}")
            self._loaded = load_scorer(self.path, trust_remote_code=self.run.trust_remote_code, device=self.run.device)
        return self._loaded

    def _ids(self, response: Response, scorer: Scorer) -> list[int]:
        """The conversation as the model reads it."""
        from jinja2 import TemplateError

        from alignzoo.data.rendering import render_whole
        from alignzoo.data.rows import PromptRow

        row = PromptRow("unpaired", response.prompt, (response.reply,), transcript=response.transcript)
        templated = bool(scorer.tokenizer.chat_template)
        try:
            text = render_whole(row, response.reply, scorer.tokenizer)
        except TemplateError as error:
            raise ModelError(
                f"the chat template of {self.options.model} rejects row {response.row_id}: {error}",
                hint="remove that row, or choose another reward model",
            ) from error
        except ModelError as error:
            raise ModelError(
                f"the data contains chat messages, but the tokenizer of {self.options.model} has no chat template",
                hint="set its chat_template, or use plain-text prompts and responses",
            ) from error
        ids: list[int] = scorer.tokenizer(text, add_special_tokens=not templated, verbose=False)["input_ids"]
        longest = min(self.options.max_length or scorer.longest, scorer.longest)
        if len(ids) > longest and not self._said_cut:
            self._said_cut = True
            self.run.report.warn(f"responses longer than {longest} reward-model tokens are truncated on the right")
        return ids[:longest]


CARD = RewardCard(
    name="hf",
    target=f"{__name__}:HF",
    options=HFOptions,
    summary="Reward or cost model: any sequence classifier with one output",
    family="from models",
    formula="s = sign · f(x, y)",
    verified=(
        Verified(
            against="transformers, one conversation at a time",
            test="test_hf_is_the_classifier_on_its_own_template",
        ),
    ),
)
