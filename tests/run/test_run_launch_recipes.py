"""``recipes/accelerate/``: accelerate reads the configurations, and the commands in their comments run."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from run_helpers import Az

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "recipes" / "accelerate").glob("*.yaml"))


def _commands(file: Path) -> list[list[str]]:
    """The command of accelerate, then our own."""
    comment = " ".join(line[2:] for line in file.read_text().splitlines() if line.startswith("# "))
    found = re.findall(r"((?:accelerate launch|alignzoo run) .*? --out \S+)", comment)
    return [shlex.split(words) for words in found]


def test_there_is_one_for_each_size() -> None:
    assert [file.stem for file in FILES] == ["1x", "2x8-ddp", "2x8-fsdp2", "8x-ddp", "8x-fsdp2"]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_configuration_is_what_its_name_says(
    file: Path, az: Az, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from accelerate.commands.config.config_args import load_config_from_file
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser

    monkeypatch.chdir(ROOT)
    size, _, parallel = file.stem.partition("-")
    nodes, devices = (2, 8) if size == "2x8" else (1, int(size[0]))
    by_accelerate, own = _commands(file)
    settings = load_config_from_file(str(file))
    assert settings.distributed_type == {"ddp": "MULTI_GPU", "fsdp2": "FSDP", "": "NO"}[parallel]
    assert (settings.num_machines, settings.num_processes) == (nodes, nodes * devices)
    assert settings.mixed_precision == "no"
    args = launch_command_parser().parse_args(by_accelerate[2:])
    args, _, _ = _validate_launch_command(args)
    assert (args.module, args.training_script) == (True, "alignzoo")
    assert (int(args.num_processes), int(args.num_machines), args.machine_rank) == (nodes * devices, nodes, 0)
    if parallel == "fsdp2":
        assert int(args.fsdp_version) == 2
        assert not settings.fsdp_config["fsdp_offload_params"]  # which alignzoo refuses
        assert not settings.fsdp_config["fsdp_activation_checkpointing"]
    words = [str(tmp_path / word) if word.startswith("runs/") else word for word in args.training_script_args]
    launched = {"WORLD_SIZE": str(nodes * devices), "LOCAL_WORLD_SIZE": str(devices), "RANK": "0", "LOCAL_RANK": "0"}
    if parallel == "fsdp2":
        launched |= {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}
    with monkeypatch.context() as there:
        for name, value in launched.items() if devices > 1 else ():
            there.setenv(name, value)
        ended = az(*words, "--dry-run")
    assert ended.returncode == 0, ended.stderr
    assert az(*own[1:-1], str(tmp_path / "own"), "--dry-run").returncode == 0
