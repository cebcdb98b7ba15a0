"""Every response of every row gets its score, whatever the shape of the data and its label noise."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from heard import Heard

from alignzoo.base.cache import cache_root
from alignzoo.contract.scoring import Response, RewardContext
from alignzoo.data.parts import Parts, Scores, load_parts
from alignzoo.errors import MethodError
from alignzoo.model.load import load_tokenizer
from alignzoo.model.source import find_model
from alignzoo.plan.plan import Method
from alignzoo.plan.settings import Settings
from alignzoo.plugin import plugins_from, registry
from alignzoo.probe.probe import Probe
from alignzoo.reward import scoring
from alignzoo.reward.scoring import _agreement, scored

PLUGIN = """
import json
from pathlib import Path

from alignzoo.interfaces import Reward
from alignzoo.plugin import Card, hookimpl


class Length(Reward):
    def scores(self, responses):
        with Path({log!r}).open("a") as file:
            file.writelines(json.dumps([r.pair_id, r.messages[-1]["content"]]) + "\\n" for r in responses)
        if any("spoil" in r.messages[0]["content"] for r in responses):
            return [0.0]
        return [float(len(r.messages[-1]["content"])) for r in responses]


@hookimpl
def alignzoo_methods():
    return [Card(kind="reward", name="length", target=f"{{__name__}}:Length", summary="s", formula="f")]
"""
FLIPPABLE = ("pairs", "unpaired", "ranked")
WORDS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]


def rows_of(shape: str, count: int = 40) -> list[dict[str, Any]]:
    """Responses whose lengths differ; every fifth pair, and every fifth list, has them in the other order."""
    rows = []
    for i in range(count):
        replies = [" " + " ".join(WORDS[: 2 * k + 2 + i % 3]) + " ." for k in range(4)][::-1]
        some = replies[: 2 + i % 3] if shape == "ranked" else replies[:2]
        some = some[::-1] if i % 5 == 0 else some
        row: dict[str, Any] = {"prompt": f"Count to {i} ."}
        if shape == "pairs":
            row |= {"chosen": some[0], "rejected": some[1], "score_chosen": 1.0 * i, "score_rejected": -1.0}
        elif shape == "unpaired":
            row |= {"completion": some[0], "label": i % 2 == 0, "score": 1.0 * i}
        else:
            row |= {"responses": some, "scores": [float(i - k) for k in range(len(some))]}
        rows.append(row)
    return rows


@pytest.fixture
def parts(tmp_path: Path) -> Callable[..., Parts]:
    """The parts of some rows with these settings."""
    tokenizer = load_tokenizer(find_model("sandbox"), Settings())

    def load(rows: list[dict[str, Any]], *, needs: tuple[Any, ...] = ("scores",), **given: Any) -> Parts:
        path = tmp_path / "rows.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        settings = Settings(**{"data": str(path), "eval_share": 0.2, "probe_share": 0.0, **given})
        return load_parts(settings, tokenizer, needs=needs, report=Heard())

    return load


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], list[list[Any]]]]:
    """What the reward ``length`` was asked so far, with nothing kept from other tests."""
    monkeypatch.setenv("ALIGNZOO_CACHE", str(tmp_path / "cache"))
    log, file = tmp_path / "asked.jsonl", tmp_path / f"length_{tmp_path.name}.py"
    file.write_text(PLUGIN.format(log=str(log)))
    log.touch()
    with plugins_from(file):
        yield lambda: [json.loads(line) for line in log.read_text().splitlines()]


def score(parts: Parts, name: str = "length", report: Heard | None = None, **options: Any) -> Parts:
    card = registry().find("reward", name)
    method = Method(card, "d", card.options(**options))  # type: ignore[union-attr, arg-type]
    context = RewardContext(None, "w", torch.device("cpu"), 0, report or Heard(), _no_probe)
    return scored(method, parts, context, Accelerator(cpu=True))[0]


def _no_probe(given: str | None) -> Probe:
    return Probe(torch.zeros(2, 1), torch.zeros(2), {})


def expected(parts: Parts, part: str, value: Callable[[int, str], float]) -> list[list[float]]:
    """A value per response of every row as it is trained on, from its text there."""
    dataset = getattr(parts, part)
    return [
        [value(row, text.partition("<")[0].strip()) for text in texts]  # without the template's end of turn
        for row, texts in zip(dataset["row_id"], dataset["response_text"], strict=True)
    ]


@pytest.mark.parametrize("noise", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("shape", FLIPPABLE)
def test_scores_stand_at_their_responses(shape: str, noise: float, parts: Any, asked: Any) -> None:
    given = parts(rows_of(shape), label_noise=noise)
    assert (given.shape, bool(given.flipped)) == (shape, noise > 0)
    found = score(given)
    for part in ("train", "held_out"):
        scores, count = found.scores[part], len(getattr(given, part))
        assert scores.of(range(count)) == expected(given, part, lambda row, text: len(text))
        assert scores.offsets[-1] == len(scores.values)
    responses = sum(len(scores.values) for scores in found.scores.values())
    assert len(asked()) == len({tuple(line) for line in asked()}) == responses


@pytest.mark.parametrize("shape", FLIPPABLE)
def test_other_noise_asks_nothing_again(shape: str, parts: Any, asked: Any) -> None:
    score(parts(rows_of(shape)))
    once = len(asked())
    for given in ({"label_noise": 0.3}, {"label_noise": 0.5, "seed": 4}):
        score(parts(rows_of(shape), **given))
        assert len(asked()) == once


@pytest.mark.parametrize("shape", FLIPPABLE)
def test_the_columns_of_any_shape_are_scores(shape: str, parts: Any) -> None:
    rows = rows_of(shape)
    given = parts(rows, label_noise=0.5)
    found = score(given, "column", sign=-1)

    def stated(row: int, text: str) -> float:
        source = rows[row]
        if shape == "unpaired":
            return -float(source["score"])
        if shape == "pairs":
            return -float(source["score_chosen" if source["chosen"].strip() == text else "score_rejected"])
        return -float(source["scores"][[reply.strip() for reply in source["responses"]].index(text)])

    for part in ("train", "held_out"):
        count = len(getattr(given, part))
        assert found.scores[part].of(range(count)) == expected(given, part, stated)


def test_how_far_the_scores_agree_is_said_where_there_is_an_order(parts: Any, asked: Any) -> None:
    said = {}
    for shape in FLIPPABLE:
        heard = Heard()
        score(parts(rows_of(shape), eval_share=0.0, label_noise=0.5), report=heard)
        [said[shape]] = [note for note in heard.notes if note.startswith("reward ")]
    assert said["pairs"] == (
        "reward length: 40 training pairs scored; the data's chosen response scores higher in 80.0% of pairs"
    )
    assert said["unpaired"] == "reward length: 40 training unpaired rows scored"
    orders = [[len(r.strip()) for r in row["responses"]] for row in rows_of("ranked")]
    pairs = [(a, b) for order in orders for i, a in enumerate(order) for b in order[i + 1 :]]
    share = sum(a > b for a, b in pairs) / len(pairs)
    assert said["ranked"].endswith(f"; the data's better response scores higher in {share:.1%} of pairs")


def test_demonstrations_are_scored_without_a_word_on_their_order(parts: Any, asked: Any) -> None:
    rows = [{name: row[name] for name in ("prompt", "completion", "score")} for row in rows_of("unpaired")]
    given, heard = parts(rows, eval_share=0.0), Heard()
    assert given.shape == "demonstrations"
    lengths = score(given, report=heard).scores["train"]
    assert lengths.of(range(40)) == expected(given, "train", lambda row, text: len(text))
    assert "reward length: 40 training demonstrations scored" in heard.notes
    assert score(given, "column").scores["train"].of(range(40)) == [[float(row["score"])] for row in rows]


def test_scores_that_an_interrupted_run_kept_are_not_asked_for(
    parts: Any, asked: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scoring, "ROWS_KEPT_TOGETHER", 8)
    whole = score(parts(rows_of("ranked"), eval_share=0.0)).scores["train"]
    files = sorted((cache_root() / "scores").glob("*.safetensors"), key=lambda path: path.stat().st_mtime_ns)
    assert len(files) == 5
    once, heard = len(asked()), Heard()
    files[-1].unlink()
    files[0].write_bytes(files[0].read_bytes()[:-4] + b"\1\1\1\1")
    again = score(parts(rows_of("ranked"), eval_share=0.0), report=heard).scores["train"]
    assert torch.equal(again.values, whole.values)
    np.testing.assert_array_equal(again.offsets, whole.offsets)
    assert once < len(asked()) < 2 * once
    assert "scored, 24 of them in an earlier run" in heard.notes[-1]
    assert [w for w in heard.warnings if "are corrupt (its content is not what was written); scoring again" in w]


def test_a_reward_that_miscounts_is_named_with_its_rows(parts: Any, asked: Any) -> None:
    spoiled = [{**row, "prompt": f"{row['prompt']} spoil"} for row in rows_of("ranked")]
    with pytest.raises(MethodError, match=r"reward 'length' returned 1 scores for \d+ responses, rows \d+ to \d+"):
        score(parts(spoiled))


def test_the_probe_points_to_scores_that_it_does_not_use(
    parts: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from alignzoo_rewards.probe import ProbeReward

    monkeypatch.setattr(ProbeReward, "scores", lambda self, responses: [0.0 for _ in responses])
    monkeypatch.setattr(ProbeReward, "identity", lambda self: str(tmp_path))
    bare = [{name: row[name] for name in ("prompt", "chosen", "rejected")} for row in rows_of("pairs")]
    whole = rows_of("pairs")
    for rows, name, points in ((whole, "probe", True), (whole, "column", False), (bare, "probe", False)):
        heard = Heard()
        score(parts(rows, needs=()), name, report=heard)
        assert ("the data has scores; --reward column uses them" in heard.notes) is points


def test_plugins_of_api_1_read_the_number_of_a_row_as_that_of_a_pair() -> None:
    response = Response(7, "p", "r", [1, 2])
    assert response.pair_id == response.row_id == 7


def test_ties_do_not_agree() -> None:
    scores = Scores(torch.tensor([2.0, 1.0, 0.5, 1.0, 1.0, 3.0, 3.0]), np.array([0, 3, 5, 7]))
    assert _agreement(scores, "ranked").endswith(" 60.0% of pairs")
