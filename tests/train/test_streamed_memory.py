"""The memory that a rank takes to load, compute with, and save a model in shards."""

from __future__ import annotations

import ctypes
import sys
import threading
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from alignzoo.distributed.sharding import decoder_layers, resharding, shard
from alignzoo.distributed.shards import local, mesh_of
from alignzoo.model import streamed
from alignzoo.model.load import check_causal, load_policy
from alignzoo.model.saved import save_sharded
from alignzoo.model.source import ModelSource
from alignzoo.model.streamed import sharded_policy, skeleton_of
from alignzoo.model.weights import fingerprint
from alignzoo.plan.settings import Settings
from alignzoo.report import Reporter
from alignzoo.testing.ranks import on_two_ranks
from alignzoo.testing.tiny import CONFIGS, SMALL


class _NoTokenizer:
    def save_pretrained(self, folder: Path) -> None:
        """A model alone."""


class _Peak(threading.Thread):
    """The most anonymous memory of this process, in MiB above what it had at the start; mapped files do not count."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.before = self.most = self._now()
        self.over = threading.Event()

    def run(self) -> None:
        while not self.over.wait(0.002):
            self.most = max(self.most, self._now())

    def stop(self) -> float:
        self.over.set()
        self.join()
        return (self.most - self.before) / 1024

    @staticmethod
    def _now() -> int:
        [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon")]
        return int(line.split()[1])


def _keep_nothing() -> None:
    """Make the C library map each tensor and give it back at once: the process then has what its tensors have."""
    library = ctypes.CDLL(None)
    library.mallopt(-3, 1 << 16)  # M_MMAP_THRESHOLD
    library.malloc_trim(0)


def peak_memory(model: Path, out: Path, straight: bool) -> dict[str, float]:
    """Of loading, fingerprinting, a checkpoint and ``model/``, in MiB."""
    from accelerate import Accelerator

    from alignzoo.train import shards
    from alignzoo.train.checkpoint import Checkpoint, load_latest, save_sharded_checkpoint

    _keep_nothing()
    source, settings, found = ModelSource(str(model)), Settings(), {}
    device, accelerator = torch.device("cpu"), Accelerator(cpu=True)
    shards.FILE_BYTES, whole_size = 32 << 20, shards.FILE_BYTES
    peak = _Peak()
    peak.start()
    if straight:
        with pytest.MonkeyPatch.context() as patch:  # the layers that a forward gathers are FSDP2's own matter
            patch.setattr(streamed, "check_causal", lambda *given: None)
            policy = sharded_policy(skeleton_of(source, settings), source, settings, device)
    else:
        policy = shard(load_policy(source, settings))
    found["load"] = peak.stop()
    (peak := _Peak()).start()
    fingerprint(policy)
    found["fingerprint"] = peak.stop()
    (peak := _Peak()).start()
    weights = {name: weight.detach() for name, weight in policy.named_parameters()}
    save_sharded_checkpoint(out, Checkpoint(1, weights, {}, {}), accelerator, keep=1)
    found["save"] = peak.stop()
    (peak := _Peak()).start()
    checkpoint = load_latest(out, Reporter(), sharing=accelerator)
    assert checkpoint is not None
    for name, tensor in checkpoint.filled(mesh_of(weights.values())).weights.items():
        assert torch.equal(local(tensor), local(weights[name]))
    found["read"] = peak.stop()
    (peak := _Peak()).start()
    save_sharded(policy, _NoTokenizer(), out / "model" if torch.distributed.get_rank() == 0 else None)
    found["model/"] = peak.stop()
    shards.FILE_BYTES = whole_size
    return {what: round(mib) for what, mib in found.items()}


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="glibc's malloc and /proc")
def test_no_rank_ever_holds_the_whole_model(tmp_path: Path) -> None:
    config = {**CONFIGS["llama"]().to_dict(), "hidden_size": 1024, "intermediate_size": 2816, "num_hidden_layers": 8}
    kept = {name: config[name] for name in (*SMALL, "hidden_size", "intermediate_size", "num_hidden_layers")}
    model = AutoModelForCausalLM.from_config(LlamaConfig(**kept)).bfloat16()  # as most are stored
    model.save_pretrained(tmp_path / "big")
    size = sum(weight.numel() * 4 for weight in model.parameters()) / (1 << 20)
    del model
    measured: dict[bool, list[dict[str, float]]] = {}
    for straight in (True, False):
        out = tmp_path / f"out-{straight}"
        out.mkdir()
        ranks = on_two_ranks(peak_memory, tmp_path / "big", out, straight, modules=[__name__])
        measured[straight] = ranks
        print(f"model of {size:.0f} MiB, {'straight into shards' if straight else 'whole first'}:", *ranks)
    for peaks in measured[True]:
        assert peaks["load"] < 0.6 * size
        assert peaks["fingerprint"] < 0.2 * size  # some copies of a chunk in int64, whatever the model's size
        assert peaks["save"] < 0.2 * size
        assert peaks["read"] < 0.6 * size  # a second set of shards
        assert peaks["model/"] < 0.15 * size  # the largest weight, and two copies on the way


def peaks_of_loading(model: Path) -> dict[str, float]:
    """Of filling the shards, of the first forward, and of a forward and backward, in MiB above what was before."""
    _keep_nothing()
    source, settings, device = ModelSource(str(model)), Settings(), torch.device("cpu")
    torch.ones(4, 4, requires_grad=True).sum().backward()
    (peak := _Peak()).start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streamed, "check_causal", lambda *given: None)
        policy = sharded_policy(skeleton_of(source, settings), source, settings, device)
    found = {"shards": peak.stop()}
    (peak := _Peak()).start()
    with torch.no_grad():
        resharding(check_causal)(policy, "", device)
    found["forward"] = peak.stop()
    (peak := _Peak()).start()
    policy(input_ids=torch.tensor([[5, 9, 31, 7]])).logits.logsumexp(-1).sum().backward()
    found["backward"] = peak.stop()
    assert len(decoder_layers(policy)) == policy.config.num_hidden_layers
    return {what: round(mib) for what, mib in found.items()}


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="glibc's malloc and /proc")
def test_what_a_pass_gathers_does_not_grow_with_the_depth(tmp_path: Path) -> None:
    config = {**CONFIGS["llama"]().to_dict(), "hidden_size": 512, "intermediate_size": 2048}
    kept = {name: config[name] for name in (*SMALL, "hidden_size", "intermediate_size")}
    measured = {}
    for depth in (4, 16):
        model = AutoModelForCausalLM.from_config(LlamaConfig(**{**kept, "num_hidden_layers": depth}))
        layer = sum(weight.numel() * 4 for weight in model.model.layers[0].parameters()) / (1 << 20)
        size = sum(weight.numel() * 4 for weight in model.parameters()) / (1 << 20)
        model.save_pretrained(tmp_path / f"{depth}")
        del model
        measured[depth] = on_two_ranks(peaks_of_loading, tmp_path / f"{depth}", modules=[__name__])
        print(f"{depth} layers of {layer:.1f} MiB, model of {size:.1f} MiB:", *measured[depth])
        for peaks in measured[depth]:
            outside = size - depth * layer
            assert peaks["shards"] < size / 2 + 2 * layer
            assert peaks["forward"] < outside + 3.5 * layer  # two, and a copy that gloo makes
            assert peaks["backward"] < size / 2 + outside + 4.5 * layer  # with the shards of gradients
    for few, many in zip(*measured.values(), strict=True):
        assert many["forward"] < few["forward"] + layer
