"""A loaded model as lm-eval's ``HFLM``: the same requests and numbers as ``lm_eval --model hf``, with alignzoo's
generation and progress."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from lm_eval.api.model import CacheHook
from lm_eval.models.huggingface import HFLM
from lm_eval.models.utils import handle_stop_sequences, has_bos_prefix, normalize_gen_kwargs

from alignzoo.errors import ModelError
from alignzoo.generate.batched import generate
from alignzoo.generate.decoding import Decoding
from alignzoo.report import Progress, Reporter

LARGEST_BATCH = 64
"""lm-eval's own bound of an automatic batch size."""
_CPU_TOKENS = 2048
"""Tokens in an automatic batch on the CPU, where nothing is gained from more and memory runs out without an error."""
_SETTINGS = {"until", "max_gen_toks", "do_sample", "temperature", "top_p", "top_k"}
_LIBRARY_TOP_K = 50
"""What transformers samples from where neither the task nor the model says."""


class ZooLM(HFLM):
    """lm-eval's model around a policy in memory, adapters and quantised weights included.

    Args:
        model: a causal language model, on its device.
        tokenizer: its tokenizer.
        batch_size: sequences at a time; None for automatic.
        seed: of sampling.
        report: receives progress.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        batch_size: int | None = None,
        seed: int = 0,
        report: Reporter | None = None,
    ) -> None:
        self._bar = Progress()
        self._seed = seed
        self._report = report or Reporter()
        self._fixed_batch_size = batch_size
        self._fitting: dict[int, int] = {}
        super().__init__(
            pretrained=model,
            tokenizer=tokenizer,
            backend="causal",
            batch_size=batch_size or 1,
            max_batch_size=LARGEST_BATCH,
        )
        self.set_cache_hook(CacheHook(None))

    def set_cache_hook(self, cache_hook: Any) -> None:
        """As lm-eval's; each answered request advances the bar as well."""
        super().set_cache_hook(_Counting(self, cache_hook))

    def loglikelihood(self, requests: list[Any], disable_tqdm: bool = True) -> list[tuple[float, bool]]:
        """As lm-eval's, with alignzoo's progress."""
        with self._progress(requests, "scoring"):
            scores: list[tuple[float, bool]] = super().loglikelihood(requests, disable_tqdm=True)
        return scores

    def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = True) -> list[float]:
        """As lm-eval's, with alignzoo's progress."""
        with self._progress(requests, "scoring texts"):
            self.batch_size_per_gpu = self._fitting_batch(self.max_length)
            scores: list[float] = super().loglikelihood_rolling(requests, disable_tqdm=True)
        return scores

    def generate_until(self, requests: list[Any], disable_tqdm: bool = True) -> list[str]:
        """As lm-eval's: through :func:`alignzoo.generate.batched.generate` where it has the settings asked for.

        Raises:
            ModelError: a task asks for as many new tokens as the model has positions.
        """
        texts: dict[int, str] = {}
        kinds: dict[str, list[int]] = {}
        for index, request in enumerate(requests):
            kinds.setdefault(json.dumps(request.args[1], sort_keys=True, default=str), []).append(index)
        for indices in kinds.values():
            of_kind = [requests[index] for index in indices]
            decoding = self._decoding(of_kind[0].args[1])
            found = self._generated(of_kind, decoding) if decoding else self._generated_by_lm_eval(of_kind)
            texts.update(zip(indices, found, strict=True))
        return [texts[index] for index in range(len(requests))]

    def _generated(self, requests: list[Any], decoding: Decoding) -> list[str]:
        room = self.max_length - decoding.max_new_tokens
        if room < 1:
            raise ModelError(
                f"task {requests[0].task_name} generates up to {decoding.max_new_tokens} tokens, and the model has "
                f"{self.max_length} positions for prompt and response",
                hint="leave the task out for this model",
            )
        prompts = [self._prompt(request.args[0])[-room:] for request in requests]
        texts = [""] * len(requests)
        for index, response in generate(
            self.model,
            self.tokenizer,
            prompts,
            decoding,
            batch_size=self._fixed_batch_size,
            report=self._report,
            label=self._label("generating", requests),
        ):
            texts[index] = response.text
            self.cache_hook.add_partial("generate_until", requests[index].args, response.text)
        return texts

    def _generated_by_lm_eval(self, requests: list[Any]) -> list[str]:
        with self._progress(requests, "generating"):
            self.batch_size_per_gpu = self._fitting_batch(self.max_length)
            texts: list[str] = super().generate_until(requests, disable_tqdm=True)
        return texts

    def _prompt(self, text: str) -> list[int]:
        """Token ids of a prompt, as lm-eval's ``tok_batch_encode`` of one."""
        special = {"add_special_tokens": False} if has_bos_prefix(text, self.tokenizer.bos_token) else {}
        return list(self.tokenizer(text, padding=False, truncation=False, verbose=False, **special)["input_ids"])

    def _decoding(self, given: Mapping[str, Any]) -> Decoding | None:
        """The settings of a request; None if they have anything else than :class:`Decoding`."""
        settings: dict[str, Any] = dict(normalize_gen_kwargs(dict(given), self.max_gen_toks))
        if not set(settings) <= _SETTINGS:
            return None
        stops = handle_stop_sequences(settings["until"], eos=self.tok_decode(self.eot_token_id, False))
        decoding = Decoding(settings["max_gen_toks"], until=tuple(stops))
        if not settings["do_sample"]:
            return decoding
        own = self.model.generation_config
        return replace(
            decoding,
            temperature=settings["temperature"] or 1.0,
            top_p=settings.get("top_p") or own.top_p or 1.0,
            top_k=_LIBRARY_TOP_K if (top_k := settings.get("top_k", own.top_k)) is None else int(top_k),
            seed=self._seed,
        )

    def _loglikelihood_tokens(
        self, requests: list[Any], disable_tqdm: bool = True, override_bs: int | None = None
    ) -> list[tuple[float, bool]]:
        longest = max((len(context) + len(rest) for _, context, rest in requests), default=1)
        self.batch_size_per_gpu = self._fitting_batch(min(longest, self.max_length))
        scores: list[tuple[float, bool]] = super()._loglikelihood_tokens(requests, disable_tqdm=True)
        return scores

    def _fitting_batch(self, length: int) -> int:
        """The batch size for sequences of a length: the given one, or what fits, measured once a length."""
        if self._fixed_batch_size is not None:
            return self._fixed_batch_size
        if self.device.type == "cpu":
            return max(1, min(LARGEST_BATCH, _CPU_TOKENS // length))
        rounded = min(1 << (length - 1).bit_length(), self.max_length)
        if rounded not in self._fitting:
            self._fitting[rounded] = self._detect_batch_size([(None, [0] * rounded, [0])])
        return self._fitting[rounded]

    @contextmanager
    def _progress(self, requests: Sequence[Any], description: str) -> Iterator[None]:
        with self._report.progress(len(requests), self._label(description, requests), unit="request") as self._bar:
            yield
        self._bar = Progress()

    @staticmethod
    def _label(description: str, requests: Sequence[Any]) -> str:
        return f"{description} ({', '.join(dict.fromkeys(str(request.task_name) for request in requests))})"


class _Counting:
    """lm-eval's cache hook, called for each answer, which also advances a bar."""

    def __init__(self, model: ZooLM, hook: Any) -> None:
        self._model, self._hook = model, hook

    def add_partial(self, kind: str, request: Any, answer: Any) -> None:
        self._hook.add_partial(kind, request, answer)
        self._model._bar.advance()
