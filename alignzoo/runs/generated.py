"""Responses during a run: suites of prompts with their judges, and samples to look at, at every evaluation."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignzoo.base.files import local_path, write_text
from alignzoo.contract.judge import JudgeContext
from alignzoo.contract.texts import as_messages
from alignzoo.evaluate.asked import Asked, Sampling, ask
from alignzoo.evaluate.suite_figures import suite_figures
from alignzoo.evaluate.suites.suite import find_suite
from alignzoo.evaluate.verdicts.choosing import judges_of
from alignzoo.evaluate.verdicts.judging import ReadyJudge, ready_judge
from alignzoo.generate.batched import generate
from alignzoo.generate.decoding import Decoding
from alignzoo.plan.judges import is_function
from alignzoo.plan.plan import Method, Plan
from alignzoo.report import Reporter
from alignzoo.train.trackers import log_texts

if TYPE_CHECKING:
    from alignzoo.session.session import Session

SAMPLES_FILE = "samples.jsonl"
SAMPLE_TOKENS = 128
_SHOWN = 300
"""Characters of a sample's prompt and response on a terminal."""


def asked_suites(plan: Plan) -> tuple[list[Asked], dict[str, tuple[Method, list[Asked]]]]:
    """The suites of a run with their prompts, and the judges by name, each with the suites it judges.

    Raises:
        UsageError: an unknown suite or judge, or a judge that applies to none of them.
        DataError: the data of a suite is missing.
    """
    settings = plan.settings
    suites = [find_suite(name) for name in settings.eval_suite]
    folder = None if settings.eval_suite_data is None else local_path(settings.eval_suite_data)
    sampling = Sampling(max_new_tokens=settings.eval_suite_max_new_tokens, seed=settings.seed)
    asked = ask(suites, data_dir=folder, limit=settings.eval_suite_limit, seed=settings.seed, sampling=sampling)
    return asked, judges_of(asked, [method for method in plan.of("judge") if not is_function(method)])


@dataclass
class Generated:
    """What a run generates at its evaluations, on the main process.

    Args:
        session: of the run; its policy is not used, since the run passes its own.
        folder: the run folder, where samples are written.
    """

    session: Session
    folder: Path
    report: Reporter

    def prepare(self) -> None:
        """Read the suites and import the judges, before any weights load.

        Raises:
            AlignzooError: as :func:`asked_suites`.
        """
        _ = self._suites

    def __bool__(self) -> bool:
        """Whether there is anything to generate."""
        settings = self.session.settings
        return bool(settings.eval_suite or settings.show_samples)

    @cached_property
    def _suites(self) -> tuple[list[Asked], dict[str, tuple[Method, list[Asked]]]]:
        return asked_suites(self.session.plan)

    def figures(self, model: Any, step: int) -> dict[str, float]:
        """Figures of the suites at the model's current weights; prints and writes the samples.

        Args:
            model: unwrapped, with all its weights.
            step: optimizer steps taken.
        """
        self._show(model, step)
        asked, judges = self._suites
        if not asked:
            return {}
        with self._ready(judges) as ready:
            return suite_figures(model, self.session.tokenizer, asked, ready, report=self.report)

    @contextmanager
    def _ready(self, judges: dict[str, tuple[Method, list[Asked]]]) -> Iterator[list[tuple[ReadyJudge, list[Asked]]]]:
        """The judges, loaded for one evaluation only: training needs the memory."""
        trust = self.session.settings.trust_remote_code
        ctx = JudgeContext(self.session.accelerator.device, self.report, trust_remote_code=trust)
        with ExitStack() as stack:
            yield [(stack.enter_context(ready_judge(method, ctx)), asked) for method, asked in judges.values()]

    @cached_property
    def _samples(self) -> tuple[list[str], list[list[int]]]:
        """The last turns and the token ids of the prompts to show: the first held-out ones, else of training rows."""
        parts, count = self.session.parts, self.session.settings.show_samples
        name = "train" if parts.held_out is None else "held_out"
        rows = getattr(parts, name)
        texts, ids, seen = list[str](), list[list[int]](), set[tuple[int, ...]]()
        for i in range(len(rows)):
            prompt = rows[i]["prompt_ids"]
            if tuple(prompt) in seen:
                continue
            seen.add(tuple(prompt))
            [row] = parts.original[name].of([rows[i]["row_id"]])
            texts.append(str(as_messages(row.prompt, "user")[-1]["content"]))
            ids.append(list(prompt))
            if len(ids) == count:
                break
        return texts, ids

    def _show(self, model: Any, step: int) -> None:
        """Generate the samples; print them, append them to ``samples.jsonl``, and pass them to the trackers."""
        if not self.session.settings.show_samples:
            return
        prompts, ids = self._samples
        decoding = Decoding(max_new_tokens=SAMPLE_TOKENS)
        given = dict(generate(model, self.session.tokenizer, ids, decoding, report=self.report, label="samples"))
        responses = [given[i].text for i in range(len(ids))]
        lines = [
            {"step": step, "prompt": prompt, "response": response, "ended": given[i].ended}
            for i, (prompt, response) in enumerate(zip(prompts, responses, strict=True))
        ]
        write_samples(self.folder / SAMPLES_FILE, lines, step)
        said = [f"samples after step {step}:" if step else "samples before training:"]
        for prompt, response in zip(prompts, responses, strict=True):
            said += [f"  > {_short(prompt)}", f"    {_short(response) or '(nothing)'}"]
        self.report.note("\n".join(said))
        rows = list(zip(prompts, responses, strict=True))
        log_texts(self.session.accelerator, "samples", ("prompt", "response"), rows, step)


def write_samples(path: Path, lines: Sequence[dict[str, Any]], step: int) -> None:
    """Add the lines of a step to a file of samples, in place of those of this and later steps, which a run that was
    resumed takes again."""
    known = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    earlier = [line for line in known if int(json.loads(line)["step"]) < step]
    write_text(path, "".join(f"{line}\n" for line in [*earlier, *map(json.dumps, lines)]))


def _short(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= _SHOWN else f"{flat[: _SHOWN - 1]}…"
