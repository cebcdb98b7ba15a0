"""Weights read straight into shards: the same model as one process loads, and the same files as it saves."""

from __future__ import annotations

import ctypes
import json
import shutil
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, LlamaConfig

from alignzoo.distributed.sharding import decoder_layers, is_shard, resharding, shard
from alignzoo.distributed.shards import is_sharded, local, mesh_of, rows_of
from alignzoo.model import streamed
from alignzoo.model.load import check_causal, load_policy
from alignzoo.model.saved import save_sharded
from alignzoo.model.source import ModelSource
from alignzoo.model.streamed import MustBeWhole, sharded_policy, skeleton_of
from alignzoo.model.weights import fingerprint, save_model
from alignzoo.plan.settings import Settings
from alignzoo.report import Reporter
from alignzoo.testing.ranks import on_two_ranks
from alignzoo.testing.tiny import CONFIGS, SMALL, tiny_model

FAMILIES = ("llama", "gpt2", "gpt-neox", "gemma2")  # plain; tied, and transposed; renamed; tied, with scaled embeddings


class _NoTokenizer:
    def save_pretrained(self, folder: Path) -> None:
        """A model alone."""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    for family in FAMILIES:
        size = "400KB" if family == "gemma2" else "50MB"  # several files, with an index
        tiny_model(family, dtype=torch.bfloat16 if family == "llama" else torch.float32).save_pretrained(
            folder / family, max_shard_size=size
        )
    return folder


def load_and_save(models: Path, out: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """What differs, on this rank, between a policy loaded in shards and one loaded whole, and between their files."""
    rank, found = torch.distributed.get_rank(), {}
    for family in FAMILIES:
        source, chosen = ModelSource(str(models / family)), Settings(**settings)
        whole: Any = load_policy(source, chosen)
        cut = sharded_policy(skeleton_of(source, chosen), source, chosen, torch.device("cpu"))
        weights = dict(cut.named_parameters())
        ids = torch.tensor([[5, 9, 31, 7]])
        folder = out / family / "ranks" if rank == 0 else None
        if folder is not None:
            folder.mkdir(parents=True)
            save_model(whole, _NoTokenizer(), out / family / "one", whole.state_dict())
        save_sharded(cut, _NoTokenizer(), folder, file_bytes=4000)
        with torch.no_grad():
            logits = [model.eval()(input_ids=ids).logits for model in (whole, cut)]
        found[family] = {
            "sharded": is_shard(cut) and all(map(is_sharded, weights.values())),
            "names": [*weights] == [name for name, _ in whole.named_parameters()],
            "rows": all(
                torch.equal(local(weights[name]), weight[rows_of(weights[name])])
                for name, weight in whole.named_parameters()
            ),
            "trains": {name for name, weight in weights.items() if weight.requires_grad}
            == {name for name, weight in whole.named_parameters() if weight.requires_grad},
            "buffers": all(
                torch.equal(buffer, other)
                for (_, buffer), (_, other) in zip(whole.named_buffers(), cut.named_buffers(), strict=True)
            ),
            "modes": [m.training for m in whole.modules()] == [m.training for m in cut.modules()],
            "outputs": torch.allclose(*logits, atol=1e-6),
            "fingerprint": fingerprint(cut) == fingerprint(whole),
            "config": whole.config.to_dict() == cut.config.to_dict(),
            "generation": whole.generation_config.to_dict() == cut.generation_config.to_dict(),
        }
    return found


@pytest.mark.parametrize("settings", [{}, {"lora_r": 2}], ids=["full", "lora"])
def test_ranks_hold_what_one_process_loads_and_save_what_it_saves(
    settings: dict[str, Any], models: Path, tmp_path: Path
) -> None:
    for found in on_two_ranks(load_and_save, models, tmp_path, settings, modules=[__name__]):
        for family, same in found.items():
            assert [what for what, holds in same.items() if not holds] == [], family
    for family in FAMILIES:
        one, ranks = tmp_path / family / "one", tmp_path / family / "ranks"
        ours, theirs = _tensors(ranks), _tensors(one)
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in ours), family
        for name in ("config.json", "generation_config.json", "adapter_config.json"):
            assert (ranks / name).exists() == (one / name).exists()
            if (one / name).exists():
                assert json.loads((ranks / name).read_text()) == json.loads((one / name).read_text())
        if not settings:
            assert (ranks / "model.safetensors.index.json").is_file()
            again = AutoModelForCausalLM.from_pretrained(ranks, dtype=torch.float32)
            assert fingerprint(again) == fingerprint(load_policy(ModelSource(str(models / family)), Settings()))


def _tensors(folder: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for file in folder.glob("*.safetensors") for name, tensor in load_file(file).items()}


def fingerprints_of_odd_shapes() -> tuple[list[str], list[str]]:
    """Of weights whose rows share words and chunks between ranks: whole, and sharded."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Shard, distribute_tensor

    from alignzoo.model import weights

    draw, mesh = torch.Generator().manual_seed(0), init_device_mesh("cpu", (2,))
    chunk, weights._CHUNK = weights._CHUNK, 8
    try:
        tensors = [
            torch.randn(shape, generator=draw).to(dtype)
            for shape in ((1,), (3,), (5, 3), (7, 1, 3), (6, 4), (0, 2))
            for dtype in (torch.float32, torch.bfloat16, torch.float64)
        ]
        cut = [distribute_tensor(tensor, mesh, [Shard(0)]) for tensor in tensors]
        return [fingerprint({"w": tensor}) for tensor in tensors], [fingerprint({"w": tensor}) for tensor in cut]
    finally:
        weights._CHUNK = chunk


def test_a_fingerprint_does_not_depend_on_how_weights_are_sharded() -> None:
    for whole, cut in on_two_ranks(fingerprints_of_odd_shapes, modules=[__name__]):
        assert cut == whole
        assert len(set(whole)) == len(whole)


@pytest.fixture
def llama(models: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(models / "llama", tmp_path / "llama"))


def _why(folder: Path, **settings: Any) -> str:
    with pytest.raises(MustBeWhole) as caught:
        skeleton_of(ModelSource(str(folder)), Settings(**settings))
    return str(caught.value)


def test_what_has_no_place_for_every_weight_is_loaded_whole(llama: Path) -> None:
    file = llama / "model.safetensors"
    tensors = load_file(file)
    assert skeleton_of(ModelSource(str(llama)), Settings()).places.keys() == tensors.keys()
    assert "--trust-remote-code" in _why(llama, trust_remote_code=True)
    with pytest.raises(MustBeWhole, match=r"\.gguf"):
        skeleton_of(ModelSource(str(llama), gguf="model.gguf"), Settings())
    norm = tensors.pop("model.norm.weight")
    save_file(tensors, file, metadata={"format": "pt"})
    assert _why(llama) == "model.norm.weight is not in its files under any of its names"
    save_file({**tensors, "model.norm.weight": norm[:3].clone()}, file, metadata={"format": "pt"})
    assert _why(llama) == "model.norm.weight has another shape than the model's"
    save_file({**tensors, "model.norm.weight": norm.to(torch.int8)}, file, metadata={"format": "pt"})
    assert _why(llama) == "model.norm.weight is stored as I8"
    file.rename(llama / "pytorch_model.bin")
    assert _why(llama) == "its weights are not in safetensors files of its own"


def test_experts_that_transformers_stacks_are_loaded_whole(tmp_path: Path) -> None:
    from transformers import MixtralConfig

    config = {**CONFIGS["llama"]().to_dict(), "num_local_experts": 2}
    config = {name: value for name, value in config.items() if name not in ("model_type", "architectures")}
    AutoModelForCausalLM.from_config(MixtralConfig(**config)).save_pretrained(tmp_path)
    assert _why(tmp_path).endswith("is converted while it loads")


def test_a_tied_weight_that_is_stored_twice_is_loaded_whole(models: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(models / "gpt2", tmp_path / "gpt2"))
    tensors = load_file(folder / "model.safetensors")
    tensors["lm_head.weight"] = tensors["transformer.wte.weight"] + 1
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    assert _why(folder).endswith("is stored more than once")


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


def peak_memory(model: Path, out: Path, straight: bool) -> dict[str, float]:
    """Of loading, fingerprinting, a checkpoint and ``model/``, in MiB."""
    from accelerate import Accelerator

    from alignzoo.train import shards
    from alignzoo.train.checkpoint import Checkpoint, load_latest, save_sharded_checkpoint

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
def test_no_rank_ever_holds_the_whole_model(tmp_path: Path) -> None:
    config = {**CONFIGS["llama"]().to_dict(), "hidden_size": 1024, "intermediate_size": 2816, "num_hidden_layers": 8}
    kept = {name: config[name] for name in (*SMALL, "hidden_size", "intermediate_size", "num_hidden_layers")}
    model = AutoModelForCausalLM.from_config(LlamaConfig(**kept)).bfloat16()  # as most are stored
    model.save_pretrained(tmp_path / "big")
    size = sum(weight.numel() * 4 for weight in model.parameters()) / (1 << 20)
    del model
    measured: dict[bool, list[dict[str, float]]] = {}
    for straight in (True, False):  # the second finds memory that the first has left
        out = tmp_path / f"out-{straight}"
        out.mkdir()
        ranks = on_two_ranks(peak_memory, tmp_path / "big", out, straight, modules=[__name__])
        measured[straight] = ranks
        print(f"model of {size:.0f} MiB, {'straight into shards' if straight else 'whole first'}:", *ranks)
    for peaks in measured[True]:
        assert peaks["load"] < 0.75 * size
        assert peaks["fingerprint"] < 400  # some copies of a chunk in int64, whatever the model's size
        assert peaks["save"] < 0.3 * size
        assert peaks["read"] < 0.75 * size
        assert peaks["model/"] < 0.1 * size


def peaks_of_loading(model: Path) -> dict[str, float]:
    """Of filling the shards, of the first forward, and of a forward and backward, in MiB above what was there before.

    The C library maps each tensor and gives it back at once, so that the process has the memory that tensors have.
    """
    library = ctypes.CDLL(None)
    library.mallopt(-3, 1 << 16)  # M_MMAP_THRESHOLD
    library.malloc_trim(0)
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
