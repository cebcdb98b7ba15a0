"""Responses to a list of prompts, into a file that resumes, or in order to a function."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from alignzoo.base.stored import value_digest
from alignzoo.errors import DataError, Interrupted
from alignzoo.evaluate.folder import held
from alignzoo.generate.batched import generate
from alignzoo.generate.decoding import Decoding
from alignzoo.generate.prompts import Prompting
from alignzoo.model.positions import stated_positions
from alignzoo.report import Reporter
from alignzoo.session.session import Session
from alignzoo.session.subject import inference_policy
from alignzoo_chat.prompt_file import Prompt
from alignzoo_chat.responses_file import Key, ResponsesFile, line_of


@dataclass(frozen=True)
class Request:
    """What to generate.

    Attributes:
        name: the model as it was named.
        samples: responses per prompt.
        batch_size: prompts at a time; None chooses it.
    """

    name: str
    prompts: Sequence[Prompt]
    decoding: Decoding
    system: str | None = None
    samples: int = 1
    batch_size: int | None = None

    @property
    def keys(self) -> list[Key]:
        """The responses, in order."""
        return [(index, sample) for index in range(len(self.prompts)) for sample in range(self.samples)]


def encoded(request: Request, session: Session, prompting: Prompting) -> list[list[int]]:
    """The token ids of each prompt; says how many are too long for the model.

    Raises:
        DataError: the chat template rejects one; names its place.
        ModelError: the chat template fails.
    """
    found = []
    for prompt in request.prompts:
        try:
            found.append(prompting.ids(prompt.messages))
        except DataError as error:
            raise DataError(f"{prompt.place}: {error.message}", hint=error.hint) from error
    positions, most = stated_positions(session.config), request.decoding.max_new_tokens
    long = 0 if positions is None else sum(len(ids) + most > positions for ids in found)
    if long:
        session.report.warn(
            f"{long} prompts do not fit the model's {positions} positions with {most} new tokens: they lose their "
            "beginning; a lower --max-new-tokens leaves more room"
        )
    return found


def about(request: Request, session: Session, prompting: Prompting) -> dict[str, Any]:
    """What the responses depend on: model, prompting, decoding and prompts."""
    settings = session.settings
    return {
        "weights": session.weights,
        "precision": settings.precision,
        "quantize": settings.quantize,
        "prompting": prompting.described,
        "system": request.system,
        "decoding": asdict(request.decoding),
        "samples": request.samples,
        "prompts": value_digest([[prompt.id, prompt.given] for prompt in request.prompts]),
    }


def write_responses(
    request: Request, session: Session, out: Path, report: Reporter, *, overwrite: bool
) -> dict[str, Any]:
    """Generate what the file does not have yet. Returns the summary.

    Raises:
        UsageError: the file is of another model, decoding or list of prompts, or another process writes to it.
        Interrupted: a request to stop; what was generated is in the file.
    """
    with held(out.parent, report, out.name):
        return _write_responses(request, session, out, report, overwrite=overwrite)


def _write_responses(
    request: Request, session: Session, out: Path, report: Reporter, *, overwrite: bool
) -> dict[str, Any]:
    prompting = Prompting(session.tokenizer, request.system)
    ids = encoded(request, session, prompting)
    file = ResponsesFile(out, about(request, session, prompting), request.keys, model=request.name, overwrite=overwrite)
    before = len(file.done)
    if before:
        report.note(f"{out}: has {before} of {len(request.keys)} responses already")
    began = time.monotonic()
    try:
        with file.journal.appending() as appender:

            def keep(key: Key, line: dict[str, Any]) -> None:
                appender.write(line)
                file.done[key] = line

            _generate(request, session, ids, file.done.copy(), keep, report)
    except KeyboardInterrupt as stop:
        raise Interrupted(
            f"stopped after {len(file.done)} of {len(request.keys)} responses, which are in {out}",
            hint="start the same command again to resume",
        ) from stop
    file.finish()
    new = list(file.done.values())[before:]
    return {"out": str(out), **_summary(request, list(file.done.values()), new, time.monotonic() - began)}


def show_responses(
    request: Request, session: Session, show: Callable[[dict[str, Any]], None], report: Reporter
) -> dict[str, Any]:
    """Generate all responses and pass their lines on in the order of the prompts, each as soon as those before it are
    there. Returns the summary."""
    ids = encoded(request, session, Prompting(session.tokenizer, request.system))
    waiting, lines, order = dict[Key, dict[str, Any]](), list[dict[str, Any]](), request.keys
    began = time.monotonic()

    def keep(key: Key, line: dict[str, Any]) -> None:
        waiting[key] = line
        while len(lines) < len(order) and (following := waiting.pop(order[len(lines)], None)) is not None:
            lines.append(following)
            show(following)

    _generate(request, session, ids, {}, keep, report)
    return _summary(request, lines, lines, time.monotonic() - began)


def _generate(
    request: Request,
    session: Session,
    ids: Sequence[Sequence[int]],
    done: dict[Key, dict[str, Any]],
    keep: Callable[[Key, dict[str, Any]], None],
    report: Reporter,
) -> None:
    keys = request.keys
    missing = [position for position, key in enumerate(keys) if key not in done]
    if not missing:
        return
    found = generate(
        inference_policy(session),
        session.tokenizer,
        [ids[index] for index, _ in keys],
        request.decoding,
        batch_size=request.batch_size,
        report=report,
        done=len(done),
        only=missing,
    )
    for position, response in found:
        key = keys[position]
        keep(key, line_of(key, request.prompts[key[0]], response, request.name))


def _summary(
    request: Request, lines: Sequence[dict[str, Any]], new: Sequence[dict[str, Any]], seconds: float
) -> dict[str, Any]:
    """Figures of all lines; the speed is that of the new ones."""
    generated = sum(line["tokens"] for line in new)
    return {
        "model": request.name,
        "prompts": len(request.prompts),
        "responses": len(lines),
        "generated": len(new),
        "tokens": sum(line["tokens"] for line in lines),
        "tokens_per_second": generated / seconds if generated and seconds > 0 else None,
        "cut": sum(not line["ended"] for line in lines),
        "max_new_tokens": request.decoding.max_new_tokens,
    }
