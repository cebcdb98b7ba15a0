"""Every pair's scores, once before training: by the run's reward, or from an earlier run that asked the same of it."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any

import torch

from alignzoo.contract.card import Options, is_path
from alignzoo.data.digests import digest
from alignzoo.data.parts import Parts, Scores
from alignzoo.distributed.ranks import on_all_ranks
from alignzoo.errors import AlignzooError, MethodError, contained
from alignzoo.interfaces import Reward
from alignzoo.plan.plan import Method
from alignzoo.plugin.build import instantiate
from alignzoo.plugin.faults import describe_error
from alignzoo.plugin.registry import registry
from alignzoo.reward.context import Response, RewardContext
from alignzoo.reward.keep import keep, kept

if TYPE_CHECKING:
    from accelerate import Accelerator

PAIRS_AT_A_TIME = 32
PAIRS_KEPT_TOGETHER = 256
"""Scores are kept, and told to the other ranks, whenever so many pairs are done: about a minute of a large model."""
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

    Every rank sets the reward up and scores its share; each of them has all scores in the end, or the same error.

    Args:
        which: the parts that are scored.

    Raises:
        MethodError: the reward failed, or did not give one finite number per response.
        AlignzooError: what the reward itself refuses.
    """
    reward: Reward = instantiate(method.card, method.options)
    on_all_ranks(accelerator, partial(_set_up, reward, method, run))
    first = accelerator.is_main_process
    identity = on_all_ranks(accelerator, partial(_identity, reward, method) if first else str)[0]
    scoring = _Scoring(reward, method, identity, parts, run, accelerator)
    return replace(parts, scores={part: scoring.of(part) for part in which if getattr(parts, part)}), identity


def _set_up(reward: Reward, method: Method, run: RewardContext) -> None:
    with _blamed(f"reward {method.card.name!r} failed while it was set up"):
        reward.setup(run)


def _identity(reward: Reward, method: Method) -> str:
    with _blamed(f"reward {method.card.name!r} failed to say what it is"):
        return score_identity(reward, method.options)


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
    """Whose code scores: an edited plugin scores again."""
    return [method.distribution, method.card.name, registry().plugin_of(method.card).fingerprint()]


@dataclass(frozen=True)
class _Scoring:
    """A reward that was set up, and what it is to score."""

    reward: Reward
    method: Method
    identity: str
    parts: Parts
    run: RewardContext
    accelerator: Accelerator

    def of(self, part: str) -> Scores:
        """Scores of a part, kept ones or new ones: block by block, one to each rank at a time."""
        count, name, report = len(getattr(self.parts, part)), self.method.card.name, self.run.report
        starts, world = range(0, count, PAIRS_KEPT_TOGETHER), self.accelerator.num_processes
        found: list[Scores] = []
        new = 0
        with report.progress(count, f"scoring pairs: {name}", unit="pair") as bar:
            for turn in range(0, len(starts), world):
                mine = starts[turn + self.accelerator.process_index :][:1]  # the last turn may leave a rank none
                for scores, is_new in chain(*on_all_ranks(self.accelerator, partial(self._blocks, part, mine))):
                    found.append(scores)
                    new += len(scores.chosen) if is_new else 0
                    for _ in scores.chosen:
                        bar.advance()
        scores = Scores(torch.cat([one.chosen for one in found]), torch.cat([one.rejected for one in found]))
        preferred = float((scores.chosen > scores.rejected).double().mean())
        words = {"train": "training", "held_out": "held-out"}[part]
        how = "scored" if new else "scored in an earlier run"
        how += f", {count - new} of them in an earlier run" if 0 < new < count else ""
        report.note(
            f"reward {name}: {count} {words} pairs {how}; the data's chosen response scores higher in {preferred:.1%}"
        )
        return _as_trained_on(scores, self.parts) if part == "train" else scores

    def _blocks(self, part: str, starts: Sequence[int]) -> list[tuple[Scores, bool]]:
        """Scores of the blocks that begin at these rows, and whether they are new."""
        return [self._block(list(_sides(self.parts, part, start, "scores" in self.method.needs))) for start in starts]

    def _block(self, pairs: Sequence[Sides]) -> tuple[Scores, bool]:
        key = digest(_VERSION, _origin(self.method), self.identity, _responses_digest(pairs))[:32]
        scores = kept(key, len(pairs), self.run.report)
        if scores is not None:
            return scores, False
        given: list[tuple[float, float]] = []
        for start in range(0, len(pairs), PAIRS_AT_A_TIME):
            given += _asked(self.reward, self.method.card.name, pairs[start : start + PAIRS_AT_A_TIME])
        both = torch.tensor(given, dtype=torch.float64)
        scores = Scores(both[:, 0].contiguous(), both[:, 1].contiguous())
        keep(key, scores, self.run.report)
        return scores, True


def _as_trained_on(scores: Scores, parts: Parts) -> Scores:
    """Scores of the responses as the data has them, with the sides of the pairs that label noise has swapped."""
    flipped = torch.tensor([pair in parts.flipped for pair in parts.train["pair_id"][:]], dtype=torch.bool)
    return Scores(
        torch.where(flipped, scores.rejected, scores.chosen), torch.where(flipped, scores.chosen, scores.rejected)
    )


def _sides(parts: Parts, part: str, start: int, own_scores: bool) -> Iterator[Sides]:
    """The two responses of each row of a block, before label noise: what is kept holds for any noise."""
    columns = ["pair_id", "prompt_ids", "chosen_ids", "rejected_ids"]
    columns += ["chosen_score", "rejected_score"] if own_scores else []
    pairs = getattr(parts, part).select_columns(columns)[start : start + PAIRS_KEPT_TOGETHER]
    rows = [dict(zip(pairs, values, strict=True)) for values in zip(*pairs.values(), strict=True)]
    for row, source in zip(rows, parts.original[part].of(pairs["pair_id"]), strict=True):
        swapped = part == "train" and row["pair_id"] in parts.flipped
        first, second = ("rejected", "chosen") if swapped else ("chosen", "rejected")
        yield (
            _response(row, source.prompt, source.chosen, source.transcript, first),
            _response(row, source.prompt, source.rejected, source.transcript, second),
        )


def _response(row: dict[str, Any], prompt: Any, reply: Any, transcript: bool, side: str) -> Response:
    ids = [*row["prompt_ids"], *row[f"{side}_ids"]]
    return Response(row["pair_id"], prompt, reply, ids, transcript, row.get(f"{side}_score"))


def _responses_digest(pairs: Sequence[Sides]) -> str:
    content = hashlib.sha256()
    for r in chain(*pairs):
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
