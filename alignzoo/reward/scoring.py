"""Every pair's scores, once before training: by the run's reward, or from an earlier run that asked the same of it."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Any

import torch

from alignzoo.data.digests import digest
from alignzoo.data.parts import Parts, Scores
from alignzoo.errors import AlignzooError, MethodError, contained
from alignzoo.interfaces import Reward
from alignzoo.plugin.build import instantiate
from alignzoo.plugin.card import Options, is_path
from alignzoo.plugin.faults import describe_error
from alignzoo.plugin.plan import Method
from alignzoo.plugin.registry import registry
from alignzoo.report import Reporter
from alignzoo.reward.context import Response, RewardContext
from alignzoo.reward.keep import keep, kept

if TYPE_CHECKING:
    from accelerate import Accelerator

PAIRS_AT_A_TIME = 32
_VERSION = 1  # part of the key of kept scores: raise it when the same reward would be asked in another way

Sides = tuple[Response, Response]


def scored(
    method: Method,
    parts: Parts,
    run: RewardContext,
    accelerator: Accelerator,
    *,
    which: Collection[str] = ("train", "held_out"),
) -> tuple[Parts, str]:
    """The parts with the scores that a reward gives their pairs, and the reward's identity.

    Every rank sets the reward up; the first one scores and tells the others.

    Args:
        which: the parts that are scored.

    Raises:
        MethodError: the reward failed, or did not give one finite number per response.
        AlignzooError: what the reward itself refuses.
    """
    from accelerate.utils import broadcast_object_list

    name = method.card.name
    reward: Reward = instantiate(method.card, method.options)
    with _blamed(f"reward {name!r} failed while it was set up"):
        reward.setup(run)
    scores: dict[str, Scores] = {}
    identity = ""
    if accelerator.is_main_process:
        with _blamed(f"reward {name!r} failed to say what it is"):
            identity = score_identity(reward, method.options)
        for part in which:
            if getattr(parts, part) is not None:
                scores[part] = _scores_of(reward, method, identity, parts, part, run.report)
    told: list[Any] = [scores, identity]
    if accelerator.num_processes > 1:
        broadcast_object_list(told)
    return replace(parts, scores=told[0]), told[1]


def score_identity(reward: Reward, options: Options) -> str:
    """What a reward's scores depend on beside the responses: its options, and what it says of itself.

    Left out are paths, whose content :meth:`Reward.identity` speaks for, and options that only change what scoring
    costs (``json_schema_extra={"cost": True}``).
    """
    stated = {name: value for name, value in options.model_dump(mode="json").items() if _decides(options, name)}
    return digest(stated, reward.identity())


def _decides(options: Options, name: str) -> bool:
    field = type(options).model_fields[name]
    extra = field.json_schema_extra
    return not (is_path(field) or (isinstance(extra, dict) and extra.get("cost")))


def _origin(method: Method) -> list[str]:
    """Whose code scores: an edited plugin scores anew."""
    return [method.distribution, method.card.name, registry().plugin_of(method.card).fingerprint()]


def _scores_of(reward: Reward, method: Method, identity: str, parts: Parts, part: str, report: Reporter) -> Scores:
    """Scores of a part: kept ones, or new ones."""
    rows, name, own = getattr(parts, part), method.card.name, "scores" in method.needs
    key = digest(_VERSION, _origin(method), identity, _responses_digest(parts, part, own))[:32]
    scores = kept(key, len(rows), report)
    if scores is None:
        given: list[tuple[float, float]] = []
        sides = _sides(parts, part, own)
        with report.progress(len(rows), f"scoring pairs: {name}", unit="pair") as bar:
            while some := list(islice(sides, PAIRS_AT_A_TIME)):
                given += _asked(reward, name, some)
                for _ in some:
                    bar.advance()
        both = torch.tensor(given, dtype=torch.float64)
        scores = Scores(both[:, 0].contiguous(), both[:, 1].contiguous())
        keep(key, scores, report)
        how = "scored"
    else:
        how = "scored in an earlier run"
    preferred = float((scores.chosen > scores.rejected).double().mean())
    words = {"train": "training", "held_out": "held-out"}[part]
    report.note(
        f"reward {name}: {len(rows)} {words} pairs {how}; the data's chosen response scores higher in {preferred:.1%}"
    )
    return _as_trained_on(scores, parts) if part == "train" else scores


def _as_trained_on(scores: Scores, parts: Parts) -> Scores:
    """Scores of the responses as the data has them, with the sides of the pairs that label noise has swapped."""
    flipped = torch.tensor([pair in parts.flipped for pair in parts.train["pair_id"][:]], dtype=torch.bool)
    return Scores(
        torch.where(flipped, scores.rejected, scores.chosen), torch.where(flipped, scores.chosen, scores.rejected)
    )


def _sides(parts: Parts, part: str, own_scores: bool) -> Iterator[Sides]:
    """The two responses of each row, in the data's order, before label noise: what is kept holds for any noise."""
    columns = ["pair_id", "prompt_ids", "chosen_ids", "rejected_ids"]
    columns += ["chosen_score", "rejected_score"] if own_scores else []
    pairs, original = getattr(parts, part).select_columns(columns), parts.original[part]
    for block in pairs.iter(batch_size=1000):
        rows = [dict(zip(block, values, strict=True)) for values in zip(*block.values(), strict=True)]
        for row, source in zip(rows, original.of(block["pair_id"]), strict=True):
            swapped = part == "train" and row["pair_id"] in parts.flipped
            first, second = ("rejected", "chosen") if swapped else ("chosen", "rejected")
            yield (
                _response(row, source.prompt, source.chosen, source.transcript, first),
                _response(row, source.prompt, source.rejected, source.transcript, second),
            )


def _response(row: dict[str, Any], prompt: Any, reply: Any, transcript: bool, side: str) -> Response:
    ids = [*row["prompt_ids"], *row[f"{side}_ids"]]
    return Response(row["pair_id"], prompt, reply, ids, transcript, row.get(f"{side}_score"))


def _responses_digest(parts: Parts, part: str, own_scores: bool) -> str:
    content = hashlib.sha256()
    for sides in _sides(parts, part, own_scores):
        for r in sides:
            line = json.dumps([r.prompt, r.reply, r.transcript, list(r.ids), r.score], sort_keys=True)
            content.update(f"{line}\n".encode())
    return content.hexdigest()


def _asked(reward: Reward, name: str, pairs: Sequence[Sides]) -> list[tuple[float, float]]:
    """The scores of some pairs, checked."""
    responses = [response for sides in pairs for response in sides]
    first, last = responses[0].pair_id, responses[-1].pair_id
    with _blamed(f"reward {name!r} failed on pairs {first} to {last}"):
        given = list(reward.scores(responses))
    if len(given) != len(responses):
        raise MethodError(
            f"reward {name!r} gave {len(given)} scores for {len(responses)} responses, pairs {first} to {last}",
            hint="scores() returns one number per response",
        )
    numbers = [_number(value) for value in given]
    for response, number, value in zip(responses, numbers, given, strict=True):
        if number is None:
            raise MethodError(
                f"reward {name!r} gave {value!r} for a response of pair {response.pair_id}",
                hint="a score is one finite number; look at that row of the data, and at the reward",
            )
    return list(zip(numbers[::2], numbers[1::2], strict=True))  # type: ignore[arg-type]


def _number(value: Any) -> float | None:
    """A score as a float; None for what is no finite number."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


@contextmanager
def _blamed(what: str) -> Iterator[None]:
    """Around a reward's code: what goes wrong there names it; refusals of its own pass as they are."""
    try:
        with contained():
            yield
    except AlignzooError:
        raise
    except Exception as error:  # a stranger's code: anything can come out of it
        raise MethodError(
            f"{what}: {describe_error(error)}", hint="run again with --debug for the traceback"
        ) from error
