"""Responses to a suite: those kept in a folder are reused, the others are generated and kept one by one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from alignzoo.contract.judge import Answered
from alignzoo.errors import UsageError
from alignzoo.evaluate.asked import Asked, decoding_facts
from alignzoo.evaluate.journal import Journal
from alignzoo.evaluate.responses import Generated, generated_of, responses_journal
from alignzoo.evaluate.suites.suite import Prompt
from alignzoo.generate.batched import generate
from alignzoo.generate.decoding import Response
from alignzoo.generate.prompts import Prompting
from alignzoo.report import Reporter


def journal_of(asked: Asked, folder: Path, model: str, about: Mapping[str, Any]) -> Journal:
    """The file of a suite's responses.

    Args:
        about: the model and how it is prompted.
    """
    facts = {
        "suite": asked.suite.name,
        "jailbreak": asked.jailbreak,
        **about,
        "decoding": decoding_facts(asked.decoding),
    }
    return responses_journal(folder, asked.name, facts, model)


def kept_responses(asked: Asked, journal: Journal) -> dict[str, Generated]:
    """The responses there are, by the id of their prompt.

    Raises:
        UsageError: the file belongs to something else, or a response answers another prompt.
        DamagedError: it cannot be read.
    """
    kept = {line.get("id"): generated_of(line, journal.path) for line in journal.begin()}
    found = {}
    for prompt in asked.prompts:
        generated = kept.get(prompt.id)
        if generated is None:
            continue
        if tuple(generated.answered.messages) != tuple(prompt.messages):
            raise UsageError(
                f"{journal.path} does not belong to this evaluation: prompt {prompt.id} of {asked.name} is another one",
                hint="choose another folder with --out, or replace it with --overwrite",
            )
        found[prompt.id] = _answering(prompt, generated)
    if kept and not found:
        raise UsageError(
            f"{journal.path} does not belong to this evaluation: it answers other prompts of {asked.name}",
            hint="choose another folder with --out, or replace it with --overwrite",
        )
    return found


def responses_to(
    asked: Asked,
    model: Callable[[], Any],
    tokenizer: Any,
    prompting: Prompting,
    *,
    journal: Journal | None = None,
    batch_size: int | None = None,
    report: Reporter | None = None,
    backend: str = "native",
) -> list[Generated]:
    """The model's responses to a suite's prompts, in their order.

    Args:
        model: loads it; not called if all responses are kept.
        journal: where responses are kept; None keeps none.
        batch_size: prompts at a time; None chooses it.
        backend: what generates; with ``vllm``, ``model`` gives lm-eval's model of it.

    Raises:
        UsageError, DamagedError: as :func:`kept_responses`.
        DataError: the chat template rejects a prompt.
    """
    found = {} if journal is None else kept_responses(asked, journal)
    left = [i for i, prompt in enumerate(asked.prompts) if prompt.id not in found]
    if left:
        if backend == "vllm":
            new = _by_vllm(asked, model(), prompting, left)
        else:
            new = generate(
                model(),
                tokenizer,
                [prompting.ids(prompt.messages) for prompt in asked.prompts],
                asked.decoding,
                batch_size=batch_size,
                report=report,
                label=f"generating ({asked.name})",
                done=len(found),
                only=left,
            )
        made = ((asked.prompts[i].id, _generated(asked.prompts[i], response)) for i, response in new)
        found |= dict(made) if journal is None else _kept_as_made(journal, asked, made)
    return [found[prompt.id] for prompt in asked.prompts]


def _by_vllm(asked: Asked, model: Any, prompting: Prompting, left: Sequence[int]) -> Iterator[tuple[int, Response]]:
    from alignzoo.evaluate.tasks.backend import vllm_responses

    texts = [prompting.text(asked.prompts[i].messages) for i in left]
    return ((left[i], response) for i, response in vllm_responses(model, texts, asked.decoding))


def _kept_as_made(journal: Journal, asked: Asked, made: Iterable[tuple[str, Generated]]) -> dict[str, Generated]:
    """New responses, each written as soon as it is there; in the end the file has the order of the prompts."""
    found = {}
    with journal.appending() as file:
        for name, generated in made:
            file.write(generated.line())
            found[name] = generated
    place = {prompt.id: i for i, prompt in enumerate(asked.prompts)}
    journal.rewrite(sorted(journal.lines(), key=lambda line: place.get(line["id"], len(place))))
    return found


def _generated(prompt: Prompt, response: Response) -> Generated:
    answered = Answered(
        prompt.id,
        prompt.request,
        tuple(prompt.messages),
        response.text,
        prompt.category,
        prompt.context,
        prompt.reference,
        prompt.facts,
    )
    return Generated(answered, response.tokens, response.ended)


def _answering(prompt: Prompt, kept: Generated) -> Generated:
    """A kept response to a prompt whose facts may have been read differently since."""
    return _generated(prompt, Response(kept.answered.response, kept.tokens, kept.ended))
