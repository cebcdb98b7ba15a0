"""A local language model that is asked for verdicts: how it is loaded, prompted and read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

from alignzoo.contract.judge import Answered, JudgeContext, Verdict
from alignzoo.errors import ModelError
from alignzoo.lazy import torch

Precision = Literal["auto", "fp32", "bf16", "fp16"]
CHUNK = 64
"""Responses that are sorted and judged together: verdicts are given, and kept, in their order."""
BATCH = 8
"""Prompts in a forward pass, unless the command says otherwise."""


class LocalModel:
    """A causal language model in eval mode with its tokenizer.

    Args:
        name: hub id or folder, of a model or of a PEFT adapter.
        flag: the option that names it, for messages.

    Raises:
        ModelError: no such model, incomplete weights, or no tokenizer.
    """

    def __init__(self, name: str, flag: str, ctx: JudgeContext, precision: Precision = "auto") -> None:
        from alignzoo.generate.prompts import Prompting
        from alignzoo.model.source import find_model

        source = find_model(name, flag)
        ctx.report.note(f"loading the judge {name}")
        self.name, self._ctx, self._said_cut = name, ctx, False
        self.tokenizer = _tokenizer(source, ctx.trust_remote_code)
        self.model = _model(source, ctx.trust_remote_code, _dtype(precision, ctx.device)).to(ctx.device)
        self._prompting = Prompting(self.tokenizer)

    def identity(self) -> str:
        """A content hash of weights, config and tokenizer, its chat template included, and of the precision."""
        from alignzoo.data.digests import digest, tokenizer_digest
        from alignzoo.model.weights import config_digest, fingerprint

        weights = [fingerprint(self.model), config_digest(self.model), str(self.model.dtype)]
        return digest(weights, tokenizer_digest(self.tokenizer))

    def conversation(self, answer: Answered, *, generation_prompt: bool = False, **names: Any) -> str:
        """A request and its response in the model's own chat template, as guard models document it.

        Args:
            names: what else the template reads.

        Raises:
            ModelError: the tokenizer has no chat template, or it rejects the conversation or leaves out the response.
        """
        if not self.tokenizer.chat_template:
            raise ModelError(
                f"the tokenizer of the judge {self.name} has no chat template, which this judge asks with",
                hint="use the publisher's own tokenizer, or the judge `chat` with a template of yours",
            )
        turns = (("user", answer.request), ("assistant", answer.response))
        plain = [{"role": role, "content": text} for role, text in turns]
        parts = [{"role": role, "content": [{"type": "text", "text": text}]} for role, text in turns]
        problem = "it leaves out the response"
        for messages in (plain, parts):  # templates of multimodal families read lists of parts only
            try:
                text = self.tokenizer.apply_chat_template(
                    messages, tokenize=False, add_generation_prompt=generation_prompt, **names
                )
            except Exception as error:  # a template is the publisher's program
                problem = str(error)
                continue
            if answer.response.strip() in text:
                return str(text)
        raise ModelError(
            f"the chat template of the judge {self.name} cannot show it response {answer.id}: {problem}",
            hint="give the judge `chat` a template of your own, or another model",
        )

    def message(self, text: str, system: str | None = None) -> str:
        """One user message in the model's chat template.

        Raises:
            ModelError: the tokenizer has none.
        """
        from alignzoo.generate.prompts import Prompting

        if not self.tokenizer.chat_template:
            raise ModelError(
                f"the tokenizer of the judge {self.name} has no chat template",
                hint="choose an instruction-tuned model, or say that the template is the whole prompt "
                "(--judge.chat.raw)",
            )
        return Prompting(self.tokenizer, system).text([{"role": "user", "content": text}])

    def cut(self, text: str, tokens: int) -> str:
        """The beginning of a text: at most so many tokens."""
        ids = self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        return text if len(ids) <= tokens else str(self.tokenizer.decode(ids[:tokens]))

    def replies(
        self,
        answers: Sequence[Answered],
        prompt: Callable[[Answered], str],
        read: Callable[[str], Verdict],
        max_new_tokens: int,
    ) -> Iterator[Verdict]:
        """The verdicts read from the model's greedy replies, in order."""
        from alignzoo.generate.batched import generate
        from alignzoo.generate.decoding import Decoding

        for start in range(0, len(answers), CHUNK):
            ids = self._ids([prompt(answer) for answer in answers[start : start + CHUNK]], max_new_tokens)
            decoding = Decoding(max_new_tokens=max_new_tokens)
            made = generate(self.model, self.tokenizer, ids, decoding, batch_size=self._ctx.batch_size)
            waiting: dict[int, Verdict] = {}
            following = 0
            for index, response in made:
                waiting[index] = read(response.text)
                while following in waiting:
                    yield waiting.pop(following)
                    following += 1

    def shares(
        self, answers: Sequence[Answered], prompt: Callable[[Answered], str], words: Sequence[str]
    ) -> Iterator[list[float]]:
        """How probable each of some words is as the next token, among these words, per response in order."""
        columns = self._columns(words)
        size = self._ctx.batch_size or BATCH
        for start in range(0, len(answers), size):
            ids = self._ids([prompt(answer) for answer in answers[start : start + size]], 1)
            logits = self._next_logits(ids)[:, columns]
            yield from logits.double().softmax(dim=1).cpu().tolist()

    def _next_logits(self, prompts: Sequence[Sequence[int]]) -> torch.Tensor:
        """Logits of the next token, ``(batch, vocabulary)``."""
        width, pad = max(map(len, prompts)), self.tokenizer.pad_token_id
        ids = torch.tensor([[pad] * (width - len(one)) + list(one) for one in prompts], device=self._ctx.device)
        lengths = torch.tensor([len(one) for one in prompts], device=self._ctx.device)
        mask = (torch.arange(width, device=self._ctx.device) >= width - lengths[:, None]).long()
        with torch.no_grad():
            made = self.model.generate(
                input_ids=ids,
                attention_mask=mask,
                max_new_tokens=1,
                do_sample=False,
                pad_token_id=pad,
                output_logits=True,
                return_dict_in_generate=True,
            )
        logits: torch.Tensor = made.logits[0].float()
        return logits

    def _columns(self, words: Sequence[str]) -> list[int]:
        """The token of each word: the word itself if the vocabulary has it, else the first token of it.

        Raises:
            ModelError: two words begin with the same token.
        """
        vocabulary = self.tokenizer.get_vocab()
        columns = []
        for word in words:
            first = self.tokenizer(word, add_special_tokens=False)["input_ids"][:1]
            columns.append(vocabulary[word] if word in vocabulary else first[0] if first else -1)
        if len(set(columns)) < len(words) or -1 in columns:
            raise ModelError(
                f"the tokenizer of the judge {self.name} cannot tell {' and '.join(words)} apart by their first token",
                hint="read its reply instead of a probability, or choose other words",
            )
        return columns

    def _ids(self, prompts: Sequence[str], new_tokens: int) -> list[list[int]]:
        """Token ids; a prompt that leaves no room for the reply loses its beginning."""
        ids = [self._prompting.encode(prompt) for prompt in prompts]
        positions = getattr(self.model.config.get_text_config(), "max_position_embeddings", None)
        room = positions - new_tokens if positions else None
        if room is None or all(len(one) <= room for one in ids):
            return ids
        if not self._said_cut:
            self._said_cut = True
            self._ctx.report.warn(f"prompts longer than {room} tokens of the judge {self.name} lose their beginning")
        return [one[-room:] for one in ids]


def _dtype(precision: Precision, device: torch.device) -> torch.dtype:
    if precision == "auto":
        precision = "bf16" if device.type == "cuda" else "fp32"
    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]


def _tokenizer(source: Any, trust_remote_code: bool) -> Any:
    """The tokenizer, an adapter's own if it has one; padding falls back to the end token."""
    from transformers import AutoTokenizer

    from alignzoo.model.explained import explained, quiet
    from alignzoo.model.source import file_of

    own = source.adapter is not None and file_of(source.adapter, "tokenizer_config.json") is not None
    path = source.adapter if own else source.path
    where = {"gguf_file": source.gguf} if source.gguf else {}
    with explained(path, "tokenizer of the judge"), quiet():
        tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=trust_remote_code, **where)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    return tokenizer


def _model(source: Any, trust_remote_code: bool, dtype: torch.dtype) -> Any:
    from transformers import AutoModelForCausalLM

    from alignzoo.model.explained import explained, quiet
    from alignzoo.model.load import safetensors_only

    where = {"gguf_file": source.gguf} if source.gguf else safetensors_only()
    expected = {"expected": "a causal language model", "hint": "a classifier goes with the judge `classifier`"}
    with explained(source.path, "judge", **expected), quiet():
        model, loaded = AutoModelForCausalLM.from_pretrained(
            source.path, dtype=dtype, trust_remote_code=trust_remote_code, output_loading_info=True, **where
        )
    if loaded["missing_keys"]:
        names = sorted(loaded["missing_keys"])
        raise ModelError(
            f"{source.path} is not a complete language model: it lacks {', '.join(names[:3])}"
            f"{', ...' if len(names) > 3 else ''}",
            hint="a classifier goes with the judge `classifier`",
        )
    if source.adapter is not None:
        from peft import PeftModel

        with explained(source.adapter, "adapter of the judge"), quiet():
            model = PeftModel.from_pretrained(model, source.adapter)
    return model.requires_grad_(False).eval()
