"""Weights read straight into shards: the same model as one process loads, and the same files as it saves."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from alignzoo.distributed.sharding import is_shard
from alignzoo.distributed.shards import is_sharded, local, rows_of
from alignzoo.model.load import load_policy
from alignzoo.model.saved import save_sharded
from alignzoo.model.source import ModelSource
from alignzoo.model.streamed import MustBeWhole, sharded_policy, skeleton_of
from alignzoo.model.weights import fingerprint, save_model
from alignzoo.plan.settings import Settings
from alignzoo.testing.ranks import on_two_ranks
from alignzoo.testing.tiny import CONFIGS, tiny_model

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
