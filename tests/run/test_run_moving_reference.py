"""Runs whose reference follows the policy."""

from __future__ import annotations

import copy
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from heard import Heard
from run_helpers import MakeModel, RunFolder, Train, same

from alignzoo.errors import AlignzooError
from alignzoo.logprobs.logps import padded_logps
from alignzoo.reference.moving import MovingReference
from alignzoo.runs.execute import resume
from alignzoo.testing.tiny import batch_of, pair_rows, shifted, tiny_model, with_adapter

TR: dict[str, Any] = {"geometry": ["sam", "tr-dpo"], "max_steps": 6, "save_every": 3, "eval_every": 2}
LN2 = math.log(2)


@pytest.fixture(autouse=True)
def _tiny(words: dict[str, Any], make_model: MakeModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(words, "model", str(make_model()))
    monkeypatch.setitem(words, "probe.share", 0.0)


@pytest.mark.parametrize("share", [0.0, 0.6, 1.0])
def test_the_reference_is_the_mixture(share: float) -> None:
    policy, start = tiny_model(), shifted(tiny_model())
    reference = MovingReference(policy, padded_logps, start=start)
    expected = copy.deepcopy(start)
    with torch.no_grad():
        for weight, target in zip(expected.parameters(), policy.parameters(), strict=True):
            weight.copy_(share * target + (1 - share) * weight)
    reference.mix(share)
    batch = batch_of(pair_rows(3))
    torch.testing.assert_close(reference(batch).logps, padded_logps(expected, batch).logps)
    assert not reference(batch).logps.requires_grad
    assert (reference.state_dict() == {}) == (share == 0)


@pytest.mark.parametrize("share", [0.6, 1.0])
def test_of_an_adapter_the_product_is_mixed(share: float) -> None:
    """W ← W + α·s·BA from a new adapter, whose B is 0 at first."""
    policy = with_adapter(tiny_model())
    reference, batch = MovingReference(policy, padded_logps), batch_of(pair_rows(3))
    before = reference(batch).logps
    torch.testing.assert_close(before, padded_logps(policy, batch).logps.detach())
    with torch.no_grad():
        for name, weight in policy.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.05, generator=torch.Generator().manual_seed(len(name)))
    torch.testing.assert_close(reference(batch).logps, before)
    expected = copy.deepcopy(policy)
    with torch.no_grad():
        for name, weight in expected.named_parameters():
            if "lora_B" in name:
                weight.mul_(share)  # of one update from the base, so the product is scaled by it
    reference.mix(share)
    torch.testing.assert_close(reference(batch).logps, padded_logps(expected, batch).logps.detach(), rtol=1e-6, atol=0)
    assert all("proj" in name for name in reference.state_dict()), "only what the adapter changes has moved"


def test_with_alpha_0_a_run_is_the_plain_one(train: Train) -> None:
    """Bit for bit, against a reference that is computed in every step as well."""
    still = train(**TR, **{"geometry.tr-dpo.alpha": 0.0, "geometry.tr-dpo.interval": 2})
    plain = train(**{**TR, "geometry": "sam"}, reference_cache=False)
    logged = "geometry/reference_distance"
    assert [{k: v for k, v in line.items() if k != logged} for line in still.timeless()] == plain.timeless()
    assert same(still.weights, plain.weights)
    assert still.metrics[1][logged] > 0
    assert logged not in still.metrics[0]


@pytest.mark.parametrize("more", [{}, {"lora.r": 2}], ids=["full", "lora"])
def test_after_a_hard_update_the_loss_is_log_2(train: Train, more: dict[str, Any]) -> None:
    run = train(**TR, **{"geometry.tr-dpo.alpha": 1.0, "geometry.tr-dpo.interval": 2}, **more)
    losses = run.column("loss")
    for step in (0, 2, 4):
        assert losses[step] == pytest.approx(LN2, abs=1e-6)
        assert abs(losses[step + 1] - LN2) > 1e-5
    assert run.metrics[1]["eval/loss"] == pytest.approx(LN2, abs=1e-6)
    assert run.metrics[1]["geometry/reference_distance"] == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("more", [{}, {"lora.r": 2}], ids=["full", "lora"])
def test_a_resumed_run_has_the_reference_of_the_uninterrupted_one(
    train: Train, tmp_path: Path, more: dict[str, Any]
) -> None:
    whole = train(**TR, **{"geometry.tr-dpo.interval": 2}, **more)
    plain = train(**{**TR, "geometry": "sam"}, **more)
    assert not same(whole.weights, plain.weights)
    again = tmp_path / "again"
    shutil.copytree(whole.path, again)
    shutil.rmtree(again / "checkpoints" / "step-00000006")
    shutil.rmtree(again / "model")
    (again / "result.json").unlink()
    resumed = RunFolder(Path(resume(again, reporter=Heard()).folder))
    assert resumed.timeless() == whole.timeless()
    assert same(resumed.weights, whole.weights)


def test_a_reference_that_nothing_reads_is_not_moved(train: Train) -> None:
    with pytest.raises(AlignzooError, match="'tr-dpo' moves the reference, but no method of this run reads it"):
        train(**TR, loss="simpo", **{"geometry.tr-dpo.interval": 2})


def test_a_run_too_short_for_an_update_is_refused(train: Train) -> None:
    with pytest.raises(AlignzooError, match="would never move the reference: it does after 512 steps"):
        train(**TR)


def test_a_cache_that_would_not_be_used_is_refused(train: Train) -> None:
    with pytest.raises(AlignzooError, match="--reference-cache has no effect here: geometry 'tr-dpo' moves"):
        train(**TR, reference_cache=True, **{"geometry.tr-dpo.interval": 2})
