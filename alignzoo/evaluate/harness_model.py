"""A loaded model as lm-eval's ``HFLM``: the same requests and numbers as ``lm_eval --model hf``, with alignzoo's batched
generation and progress."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from lm_eval.models.huggingface import HFLM

from alignzoo.report import Progress, Reporter

LARGEST_BATCH = 64
"""lm-eval's own bound of an automatic batch size."""
_CPU_TOKENS = 2048
"""Tokens in an automatic batch on the CPU, where nothing is gained from more and memory runs out without an error."""


class ZooLM(HFLM):  # type: ignore[misc]
    """lm-eval's model around a policy in memory, adapters and quantised weights included.

    Args:
        model: a causal language model, on its device.
        tokenizer: its tokenizer.
        batch_size: sequences at a time; None for automatic.
        report: receives progress.
    """

    def __init__(self, model: Any, tokenizer: Any, *, batch_size: int | None = None, report: Reporter | None = None):
        self._bar = Progress()
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
        """As lm-eval's, with alignzoo's progress."""
        with self._progress(requests, "generating"):
            self.batch_size_per_gpu = self._fitting_batch(self.max_length)
            texts: list[str] = super().generate_until(requests, disable_tqdm=True)
        return texts

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
        names = dict.fromkeys(str(request.task_name) for request in requests)
        with self._report.progress(len(requests), f"{description} {', '.join(names)}", unit="request") as self._bar:
            yield
        self._bar = Progress()


class _Counting:
    """lm-eval's cache hook, called for each answer, which also advances a bar."""

    def __init__(self, model: ZooLM, hook: Any) -> None:
        self._model, self._hook = model, hook

    def add_partial(self, kind: str, request: Any, answer: Any) -> None:
        self._hook.add_partial(kind, request, answer)
        self._model._bar.advance()
