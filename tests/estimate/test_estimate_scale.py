"""Many GPUs: what is sharded, gathered, exchanged and offloaded, against closed forms."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import transformers
from alignzoo_estimate.cards import CARDS, GIB
from alignzoo_estimate.communication import Traffic, seconds
from alignzoo_estimate.estimate import Estimate, Hardware, Model, Situation, estimate
from alignzoo_estimate.hardware import OF_A_LINK
from alignzoo_estimate.host import PROCESS
from alignzoo_estimate.lengths import Data
from alignzoo_estimate.micro_batch import Lengths, Way

from alignzoo.plan.recipe import Layer
from alignzoo.plan.resolve import require, resolve

SIZES = {"vocab_size": 211, "hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 4}
CONFIG = transformers.LlamaConfig(**SIZES, num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=False)
MODEL = Model(CONFIG)
PAIR = Lengths(20, (12, 12))
DATA = Data(PAIR, PAIR, PAIR, "given")
ROOT = 2 * 211 * 64 + 64
LAYERS = MODEL.shapes.total - ROOT
TOTAL = ROOT + LAYERS


def sharded(devices: int = 4, nodes: int = 1, **rates: Any) -> Hardware:
    return Hardware(devices, True, None, 1e12, "fsdp", nodes, **rates)


def planned(hardware: Hardware, **words: Any) -> Estimate:
    """A step of two micro-batches on each device."""
    size = {"batch-size": 4 * hardware.devices, "micro-batch-size": 2, "precision": "fp32"}
    flat = {name.replace("__", ".").replace("_", "-"): value for name, value in words.items()}
    plan = require(resolve([Layer("flag", {"model": "a", "data": "b", **size, **flat})], distributed=hardware.sharding))
    return estimate(Situation(plan, MODEL, hardware, DATA))


def part(found: Estimate, name: str, moment: str) -> float:
    return next(one for one in found.moments if one.name == moment).parts.get(name, 0.0)


def test_fsdp2_gathers_layers_twice_the_rest_once_and_scatters_each_micro_batch() -> None:
    plain = planned(sharded())
    assert plain.traffic == Traffic(gathered=2 * 4 * (ROOT + 2 * LAYERS), scattered=2 * 4 * TOTAL)
    assert planned(sharded(), geometry="sam").traffic.exchanged == 2 * plain.traffic.exchanged
    more = planned(sharded(), robust=["drdpo"]).traffic.gathered - plain.traffic.gathered
    assert more == 2 * 4 * TOTAL, "the forward passes before those with gradients"
    assert planned(sharded(), geometry="random").traffic.gathered - plain.traffic.gathered == more


def test_fsdp2_gathers_the_layers_maps_in_bf16() -> None:
    narrow = LAYERS + 2 * 4 * 64  # in numbers of two bytes: the layers' two norms have four
    found = planned(sharded(), precision="bf16")
    assert found.traffic == Traffic(gathered=2 * (4 * ROOT + 2 * 2 * narrow), scattered=2 * 4 * TOTAL)
    assert part(found, "bf16 copies of weights", "backward") == 0
    assert part(planned(Hardware(4, True, None, None, "ddp"), precision="bf16"), "bf16 copies of weights", "backward")
    layer = MODEL.shapes.layer
    assert part(found, "gathered weights", "backward") == 4 * ROOT + 2 * 2 * layer
    wide = planned(sharded())
    less = part(wide, "whole gradients", "backward") - part(found, "whole gradients", "backward")
    assert less == 2 * layer


def test_ddp_reduces_the_gradients_once_a_pass() -> None:
    found = planned(Hardware(4, True, None, None, "ddp"))
    assert found.traffic == Traffic(reduced=4 * TOTAL)
    assert found.traffic.exchanged == 8 * TOTAL
    adapted = planned(Hardware(4, True, None, None, "ddp"), lora__r=4)
    assert adapted.traffic == Traffic(reduced=4 * MODEL.shapes.adapter(4))


def test_the_slower_of_links_and_network_counts() -> None:
    moved = Traffic(gathered=1e9)
    assert seconds(moved, sharded(8, link=1e11)) == pytest.approx(1e9 * 7 / 8 / 1e11 / OF_A_LINK)
    two = sharded(16, 2, link=1e11, network=1e9)
    assert seconds(moved, two) == pytest.approx(1e9 / 2 / 8 / 1e9 / OF_A_LINK)
    assert seconds(moved, replace(two, network=1e11)) == pytest.approx(1e9 * 15 / 16 / 1e11 / OF_A_LINK)
    assert seconds(moved, replace(two, network=None)) is None
    assert seconds(Traffic(host=2e9), sharded(host=1e9)) == pytest.approx(2 / OF_A_LINK)
    assert seconds(Traffic(), Hardware(1, True, None, None, "none")) == 0


def test_a_step_takes_between_its_longer_part_and_both_of_them() -> None:
    found = planned(sharded(link=1e9))
    assert found.computing is not None
    assert found.communicating is not None
    assert found.seconds == found.computing + found.communicating
    assert found.overlapped == max(found.computing, found.communicating)
    unknown = planned(sharded())
    assert (unknown.communicating, unknown.seconds) == (None, unknown.computing)


def test_whole_gradients_of_a_layer_and_of_the_root_wait_for_their_exchange() -> None:
    found = planned(sharded())
    layer, head = MODEL.shapes.layer, MODEL.shapes.head
    assert part(found, "gathered weights", "forward") == 4 * (ROOT + 2 * layer)
    assert part(found, "whole gradients", "backward") == 4 * (head + 2 * layer)
    assert part(found, "whole gradients", "end of the backward") == 2 * 4 * ROOT
    assert part(found, "gradients", "optimizer step") == TOTAL


def test_sharded_weights_are_loaded_tensor_by_tensor() -> None:
    found = planned(sharded())
    assert part(found, "weights", "loading") == TOTAL
    assert part(found, "working", "loading") == 4 * 211 * 64
    assert found.host is not None
    assert found.host.loading == 4 * (PROCESS + 4 * 211 * 64)
    whole = planned(Hardware(4, True, None, None, "ddp"))
    assert whole.host is not None
    assert whole.host.loading == 4 * (PROCESS + 4 * TOTAL)


def test_offloaded_weights_are_in_host_memory() -> None:
    here, there = planned(sharded(8, 2)), planned(sharded(8, 2), offload="weights")
    for name in ("weights", "optimizer", "gradients"):
        assert part(here, name, "backward") > 0
        assert part(there, name, "backward") == 0
    assert part(there, "gathered weights", "forward") > part(here, "gathered weights", "forward")
    assert there.host is not None
    assert here.host is not None
    assert there.host.training - here.host.training == pytest.approx(4 * 16 * TOTAL / 8, rel=1e-3), "4 ranks a node"
    assert there.traffic.host == there.traffic.exchanged / 8


def test_offloaded_activations_leave_two_layers_here() -> None:
    gpu = Hardware(1, True, None, None, "none")
    here, there = planned(gpu), planned(gpu, activation_offloading=True)
    kept = part(here, "activations", "head")
    assert part(there, "activations", "head") == pytest.approx(kept / 2), "of four layers"
    assert there.host is not None
    assert here.host is not None
    assert there.host.training - here.host.training == pytest.approx(kept / 2)
    assert there.traffic.host == pytest.approx(2 * 2 * kept / 2)


def test_frozen_weights_in_bf16_take_half_and_keep_smaller_activations() -> None:
    words: dict[str, Any] = {"lora__r": 4, "precision": "bf16"}
    wide, narrow = (planned(sharded(), weights=dtype, **words) for dtype in ("fp32", "bf16"))
    adapter = 4 * MODEL.shapes.adapter(4)
    assert part(narrow, "weights", "head") == (2 * TOTAL + adapter) / 4
    assert part(wide, "weights", "head") == (4 * TOTAL + adapter) / 4
    assert part(narrow, "activations", "head") < part(wide, "activations", "head")
    assert part(narrow, "gradients", "head") == part(wide, "gradients", "head")


def test_the_copies_of_autocast_are_gone_after_a_forward_that_is_recomputed() -> None:
    for checkpointing, kept in ((False, 1), (True, 0)):
        held = MODEL.held(Way(True, 0, checkpointing, True), [PAIR] * 2)
        maps = sum(one.parameters for one in MODEL.shapes.maps)
        assert held.copies == 2 * maps, "autocast keeps them until the forward ends"
        assert held.saved_copies == kept * 2 * maps
    sharded_way = Way(True, 0, True, True, cached=False)
    assert MODEL.held(sharded_way, [PAIR] * 2).copies == 0


def test_the_fewest_nodes_that_fit_are_proposed() -> None:
    from alignzoo_estimate.advice import changes

    layers = [Layer("flag", {"model": "a", "data": "b", "batch-size": 4 * 8 * 15, "micro-batch-size": 1})]
    plan = require(resolve(layers, distributed="fsdp"))

    def on(nodes: int, memory: float) -> Estimate:
        return estimate(Situation(plan, MODEL, replace(sharded(8 * nodes, nodes), memory=memory), DATA))

    enough = on(3, 1.0).peak.total
    said = {one.words: one for one in changes(on(1, enough), layers)}
    assert said["--gpus 8 --nodes 3"].estimate.fits
    assert not on(2, enough).fits


def test_a_way_on_the_same_hardware_is_shown_beside_more_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    from alignzoo_estimate import advice

    plenty = replace(sharded(16), memory=1e12)
    monkeypatch.setattr(advice, "_machines", lambda _situation: [advice._Candidate("--gpus 16", {}, plenty)])
    layers = [Layer("flag", {"model": "a", "data": "b", "batch-size": 64, "micro-batch-size": 2})]
    plan = require(resolve(layers, distributed="fsdp"))

    long = Lengths(800, (200, 200))

    def within(memory: float) -> Estimate:
        return estimate(Situation(plan, MODEL, replace(sharded(8), memory=memory), Data(long, long, long, "given")))

    found = advice.changes(within(1e12), layers)
    alone = [one for one in found if "--gpus" not in one.words and not one.adapts]
    assert not advice.together(within(alone[0].total), layers), "a single change is enough"
    both = advice._path(within(1.0), layers, advice.WAYS["on this hardware"])[1]
    tight = within(both.total)
    assert any(one.estimate.fits for one in advice.changes(tight, layers) if "--gpus" in one.words)
    assert advice.together(tight, layers)["on this hardware"][-1].estimate.fits


def test_cards_hold_what_their_names_say() -> None:
    for name, size in (("h100", 80), ("h200", 141), ("a100-80", 80), ("a100-40", 40), ("l40s", 48), ("4090", 24)):
        assert 0.9 * size < CARDS[name].memory / GIB < size
        assert CARDS[name].rate(bf16=True) > CARDS[name].rate(bf16=False)


def test_controllers_are_compared_with_the_plain_step() -> None:
    from alignzoo_estimate.controllers import by_controller

    layers = [Layer("flag", {"model": "a", "data": "b", "loss": "simpo", "geometry": "ema", "batch-size": 16})]
    plan = require(resolve(layers, distributed="fsdp"))
    rows = by_controller(Situation(plan, MODEL, sharded(), DATA), layers, ["sam", "ema", "tr-dpo"])
    plain, sam, ema, moving = rows
    assert (plain.name, plain.passes, plain.work, plain.geometry) == ("plain", 1, 1, 0)
    assert (sam.passes, sam.work) == (2, 2)
    assert sam.geometry == pytest.approx(TOTAL, rel=0.1), "a quarter of a snapshot in fp32"
    assert (ema.work, ema.refused) == (1, None)
    assert "no method of this run reads it" in str(moving.refused)
    assert moving.peak is None
