"""Scores every response once before training, with the run's reward or from the cache."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from alignzoo.contract.card import Options, is_path
from alignzoo.contract.reward import Reward
from alignzoo.contract.scoring import Response, RewardContext
from alignzoo.data.columns import column, list_lengths
from alignzoo.data.digests import digest
from alignzoo.data.parts import Parts, Scores
from alignzoo.data.shapes import NOUNS, SINGLE, Shape
from alignzoo.distributed.ranks import on_all_ranks
from alignzoo.errors import MethodError
from alignzoo.plan.plan import Method
from alignzoo.plugin.build import instantiate
from alignzoo.plugin.guard import guarded
from alignzoo.plugin.registry import registry
from alignzoo.reward.keep import keep, kept

if TYPE_CHECKING:
    from accelerate import Accelerator

ROWS_AT_A_TIME = 32
ROWS_KEPT_TOGETHER = 256
"""Scores are cached and exchanged between ranks after this many rows: about a minute with a large model."""
_VERSION = 2  # part of the cache key: raise it when the same reward would be called differently


def scored(
    method: Method,
    parts: Parts,
    run: RewardContext,
    accelerator: Accelerator,
    *,
    which: Collection[str] = ("train", "held_out"),
) -> tuple[Parts, str]:
    """The parts with a reward's scores of their responses, and the reward's identity.

    Every rank sets up the reward and scores its share; in the end all have all scores, or the same error.

    Args:
        which: the parts to score.

    Raises:
        MethodError: the reward failed, or did not return one finite number per response.
        AlignzooError: the reward itself rejects something.
    """
    reward: Reward = instantiate(method.card, method.options)
    sources = [part for name in which if (part := getattr(parts, name)) is not None]
    run = replace(run, data_scores=any("score" in part.column_names for part in sources))
    on_all_ranks(accelerator, partial(_set_up, reward, method, run))
    first = accelerator.is_main_process
    identity = on_all_ranks(accelerator, partial(_identity, reward, method) if first else str)[0]
    scoring = _Scoring(reward, method, identity, parts, run, accelerator)
    return replace(parts, scores={part: scoring.of(part) for part in which if getattr(parts, part)}), identity


def _set_up(reward: Reward, method: Method, run: RewardContext) -> None:
    with guarded(f"reward {method.card.name!r} failed in setup()"):
        reward.setup(run)


def _identity(reward: Reward, method: Method) -> str:
    with guarded(f"reward {method.card.name!r} failed in identity()"):
        return score_identity(reward, method.options)


def score_identity(reward: Reward, options: Options) -> str:
    """What a reward's scores depend on besides the responses: its options and its own identity.

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
    """A reward after setup, and the parts to score."""

    reward: Reward
    method: Method
    identity: str
    parts: Parts
    run: RewardContext
    accelerator: Accelerator

    def of(self, part: str) -> Scores:
        """Scores of a part, cached or new: block by block, one per rank at a time."""
        dataset, name, report = getattr(self.parts, part), self.method.card.name, self.run.report
        count, noun = len(dataset), NOUNS[self.parts.shape]
        starts, world = range(0, count, ROWS_KEPT_TOGETHER), self.accelerator.num_processes
        found: list[torch.Tensor] = []
        new = 0
        with report.progress(count, f"scoring {noun}: {name}", unit="row") as bar:
            for turn in range(0, len(starts), world):
                mine = starts[turn + self.accelerator.process_index :][:1]  # the last turn may leave a rank none
                for block in chain(*on_all_ranks(self.accelerator, partial(self._blocks, part, mine))):
                    found.append(block.scores)
                    new += block.rows if block.new else 0
                    for _ in range(block.rows):
                        bar.advance()
        offsets = np.concatenate([[0], np.cumsum(list_lengths(dataset, "response_ids"))])
        scores = Scores(torch.cat(found), offsets)
        words = {"train": "training", "held_out": "held-out"}[part]
        how = "scored" if new else "scored in an earlier run"
        how += f", {count - new} of them in an earlier run" if 0 < new < count else ""
        report.note(f"reward {name}: {count} {words} {noun} {how}{_agreement(scores, self.parts.shape)}")
        return _as_trained_on(scores, self.parts) if part == "train" else scores

    def _blocks(self, part: str, starts: Sequence[int]) -> list[_Block]:
        return [self._block(list(_rows(self.parts, part, start, "scores" in self.method.needs))) for start in starts]

    def _block(self, rows: Sequence[Sequence[Response]]) -> _Block:
        """The scores of some rows."""
        responses = list(chain(*rows))
        key = digest(_VERSION, _origin(self.method), self.identity, _responses_digest(responses))[:32]
        scores = kept(key, len(responses), self.run.report)
        if scores is not None:
            return _Block(scores, len(rows), new=False)
        given: list[float] = []
        for start in range(0, len(rows), ROWS_AT_A_TIME):
            asked = list(chain(*rows[start : start + ROWS_AT_A_TIME]))
            given += _asked(self.reward, self.method.card.name, asked)
        scores = torch.tensor(given, dtype=torch.float64)
        keep(key, scores, self.run.report)
        return _Block(scores, len(rows), new=True)


@dataclass(frozen=True)
class _Block:
    """The scores of consecutive rows' responses, and whether this run has asked for them."""

    scores: torch.Tensor
    rows: int
    new: bool


def _agreement(scores: Scores, shape: Shape) -> str:
    """How often scores agree with the data's order, if it has one."""
    if shape in SINGLE:
        return ""
    row = np.repeat(np.arange(len(scores.offsets) - 1), np.diff(scores.offsets))
    values = scores.values.numpy()
    agrees, pairs = 0, 0
    for distance in range(1, int(np.diff(scores.offsets).max())):
        together = row[distance:] == row[:-distance]
        agrees += int((values[:-distance] > values[distance:])[together].sum())
        pairs += int(together.sum())
    share = f"{agrees / pairs:.1%}"
    return f"; the data's {'chosen' if shape == 'pairs' else 'better'} response scores higher in {share} of pairs"


def _as_trained_on(scores: Scores, parts: Parts) -> Scores:
    """Scores of the responses as the data has them, in the opposite order where label noise has reversed it."""
    counts = np.diff(scores.offsets)
    flipped = np.isin(column(parts.train, "row_id").to_numpy(), list(parts.flipped))
    places = np.arange(len(scores.values))
    mirrored = np.repeat(scores.offsets[:-1] + scores.offsets[1:] - 1, counts) - places
    return Scores(scores.values[np.where(np.repeat(flipped, counts), mirrored, places)], scores.offsets)


def _rows(parts: Parts, part: str, start: int, own_scores: bool) -> Iterator[list[Response]]:
    """The responses of each row of a block, as they were before label noise: what is kept holds for any noise."""
    names = ["row_id", "prompt_ids", "response_ids", *(["score"] if own_scores else [])]
    columns = getattr(parts, part).select_columns(names)[start : start + ROWS_KEPT_TOGETHER]
    rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    for row, source in zip(rows, parts.original[part].of(columns["row_id"]), strict=True):
        order = -1 if part == "train" and row["row_id"] in parts.flipped else 1
        ids, scores = row["response_ids"], row.get("score") or [None] * len(row["response_ids"])
        yield [
            Response(row["row_id"], source.prompt, reply, [*row["prompt_ids"], *tokens], source.transcript, score)
            for reply, tokens, score in zip(source.responses, ids[::order], scores[::order], strict=True)
        ]


def _responses_digest(responses: Sequence[Response]) -> str:
    content = hashlib.sha256()
    for r in responses:
        line = json.dumps([r.prompt, r.reply, r.transcript, list(r.ids), r.score], sort_keys=True)
        content.update(f"{line}\n".encode())
    return content.hexdigest()


def _asked(reward: Reward, name: str, responses: Sequence[Response]) -> list[float]:
    """The scores of some responses, checked."""
    first, last = responses[0].row_id, responses[-1].row_id
    with guarded(f"reward {name!r} failed on rows {first} to {last}"):
        given = list(reward.scores(responses))
    if len(given) != len(responses):
        raise MethodError(
            f"reward {name!r} returned {len(given)} scores for {len(responses)} responses, rows {first} to {last}",
            hint="scores() returns one number per response",
        )
    numbers = list[float]()
    for response, value in zip(responses, given, strict=True):
        number = _number(value)
        if number is None:
            raise MethodError(
                f"reward {name!r} returned {value!r} for a response of row {response.row_id}",
                hint="a score must be one finite number; check that row of the data and the reward",
            )
        numbers.append(number)
    return numbers


def _number(value: Any) -> float | None:
    """A score as a float; None for what is no finite number."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None
