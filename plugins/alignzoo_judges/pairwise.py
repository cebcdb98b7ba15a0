"""Which of two responses is better, in the words of a language model: a local one, or one behind an endpoint."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

from pydantic import Field

from alignzoo.contract.card import Options, Paper
from alignzoo.contract.judge import Answered, Judge, JudgeCard, JudgeContext, Preference, Verdict
from alignzoo.contract.paper import Verified
from alignzoo_judges.endpoint_options import ConnectionOptions

_PAPER = Paper(
    title="Judging LLM-as-a-Judge with MT-Bench and Chatbot Arena",
    arxiv="2306.05685",
    authors=("Zheng, Lianmin", "Chiang, Wei-Lin", "Sheng, Ying", "others"),
    venue="NeurIPS 2023",
)
_TEMPLATE = Field(
    None,
    min_length=1,
    description="a text (or a file with it) with {request}, {first}, {second} or {reference} that asks for [[A]], "
    "[[B]] or [[C]] for a tie [default: which response serves the user better]",
)
_LIMITS = "prefers some positions and longer responses: read position consistency and the length-controlled rate too"


class PairwiseOptions(Options):
    """The model, and how it is asked."""

    model: str = Field(
        min_length=1,
        description="hub id or folder of an instruction-tuned language model",
        examples=["./judge-model"],
        json_schema_extra={"path": True},
    )
    template: str | None = _TEMPLATE
    system: str | None = Field(None, description="system prompt")
    max_new_tokens: int = Field(32, ge=1, description="most tokens of a reply")
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "auto", description="of its weights (auto: bf16 on a GPU, else fp32)"
    )


class Pairwise(Judge):
    """Preferences of a local language model, decoded greedily."""

    options: PairwiseOptions

    def setup(self, ctx: JudgeContext) -> None:
        """Read the template and load the model.

        Raises:
            UsageError: the template is not one of pairs.
            ModelError: the model is not usable, or its tokenizer has no chat template to ask with.
        """
        from alignzoo_judges.local_model import LocalModel

        self._template = _template(self.options.template, "--judge.pairwise.template")
        self._model = LocalModel(self.options.model, "judge.pairwise.model", ctx, self.options.precision)
        self._model.message("?", self.options.system)

    def identity(self) -> str:
        return f"{self._model.identity()}\n{self._template}"

    def prefer(self, firsts: Sequence[Answered], seconds: Sequence[Answered]) -> Iterator[Preference]:
        from alignzoo_judges.pairwise_prompt import filled_pair, read_preference

        asked = [
            Answered(first.id, filled_pair(self._template, first, second), (), "")
            for first, second in zip(firsts, seconds, strict=True)
        ]
        for reply in self._model.replies(asked, self._prompt, _as_it_is, self.options.max_new_tokens):
            yield read_preference(reply.raw)

    def close(self) -> None:
        vars(self).pop("_model", None)

    def _prompt(self, asked: Answered) -> str:
        return self._model.message(asked.request, self.options.system)


class EndpointPairwiseOptions(ConnectionOptions):
    """The endpoint, and how it is asked."""

    template: str | None = _TEMPLATE


class EndpointPairwise(Judge):
    """Preferences of a model behind an endpoint."""

    options: EndpointPairwiseOptions

    def setup(self, ctx: JudgeContext) -> None:
        """Read the template and the key, and see whether the endpoint is there; nothing is sent.

        Raises:
            UsageError: the template is not one of pairs, or the key cannot be sent.
            ModelError: nothing listens there.
        """
        self._template = _template(self.options.template, "--judge.endpoint-pairwise.template")
        from alignzoo_judges.endpoint_connection import Connection

        self._connection = Connection("endpoint-pairwise", self.options, ctx.report)

    def identity(self) -> str:
        return self._template

    def prefer(self, firsts: Sequence[Answered], seconds: Sequence[Answered]) -> Iterator[Preference]:
        from alignzoo_judges.pairwise_prompt import filled_pair, read_preference

        pairs = zip(firsts, seconds, strict=True)
        for reply in self._connection.replies([filled_pair(self._template, *pair) for pair in pairs]):
            yield Preference(None, reply.raw) if reply.text is None else read_preference(reply.text)

    def close(self) -> None:
        if hasattr(self, "_connection"):
            self._connection.close()


def _template(given: str | None, flag: str) -> str:
    from alignzoo_judges.pairwise_prompt import TEMPLATE, read_pair_template

    return TEMPLATE if given is None else read_pair_template(given, flag)


def _as_it_is(reply: str) -> Verdict:
    return Verdict(None, raw=reply)


CARD = JudgeCard(
    name="pairwise",
    target=f"{__name__}:Pairwise",
    options=PairwiseOptions,
    summary="Which of two responses is better, by any local chat model",
    family="preferences",
    paper=_PAPER,
    measures="preference",
    verified=(Verified(against="known replies", test="test_a_local_model_compares_pairs"),),
    limits=_LIMITS,
)
ENDPOINT_CARD = JudgeCard(
    name="endpoint-pairwise",
    target=f"{__name__}:EndpointPairwise",
    options=EndpointPairwiseOptions,
    summary="Which of two responses is better, by a model behind an endpoint",
    family="preferences",
    paper=_PAPER,
    measures="preference",
    verified=(
        Verified(against="a server with known replies", test="test_a_failing_endpoint_resumes_and_the_key_is_nowhere"),
    ),
    limits=f"{_LIMITS}; sends requests and responses to a third party",
)
