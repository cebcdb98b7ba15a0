"""``alignzoo export``: a run or model as a folder for transformers, llama.cpp, Ollama and the hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from alignzoo.cli.command import command as cli_command
from alignzoo.cli.command import json_option
from alignzoo.cli.console import print_json, print_lines, print_table
from alignzoo.cli.reporter import ConsoleReporter


@cli_command("export")
@click.argument("name", metavar="RUN|MODEL")
@click.option("--out", required=True, metavar="DIR", help="folder to write")
@click.option(
    "--dtype",
    type=click.Choice(["fp32", "bf16", "fp16", "keep"]),
    default="keep",
    help="dtype of the weights; keep: that of the base model [default: keep]",
)
@click.option(
    "--gguf",
    type=click.Choice(["f32", "f16", "bf16", "q8_0"]),
    is_flag=False,
    flag_value="f16",
    help="also write model.gguf for llama.cpp, by default in f16",
)
@click.option("--ollama", is_flag=True, help="also write a Modelfile for Ollama")
@click.option("--no-card", is_flag=True, help="write no model card")
@click.option("--no-merge", is_flag=True, help="export the adapter alone, for peft")
@click.option("--push", metavar="OWNER/NAME", help="upload the folder to this repository on the Hugging Face hub")
@click.option("--private", is_flag=True, help="create that repository as private")
@click.option(
    "--max-shard-size",
    default="5GB",
    metavar="SIZE",
    help="split weights into files of at most this size [default: 5GB]",
)
@click.option("--overwrite", is_flag=True, help="replace an earlier export in the folder")
@click.option("--trust-remote-code", is_flag=True, help="allow the model to run code of its own")
@json_option
def command(
    name: str,
    out: str,
    dtype: Any,
    gguf: Any,
    ollama: bool,
    no_card: bool,
    no_merge: bool,
    push: str | None,
    private: bool,
    max_shard_size: str,
    overwrite: bool,
    trust_remote_code: bool,
    as_json: bool,
) -> None:
    """Export a run or model: merged safetensors, a model card, and on request GGUF and an Ollama Modelfile.

    The folder loads with plain transformers (with --no-merge: peft). GGUF files are written for models of the Llama
    family with byte-level BPE tokenizers.
    """
    from alignzoo.base.files import local_path
    from alignzoo.session.subject import subject_of
    from alignzoo_export.export import Choices, export

    choices = Choices(
        dtype=dtype,
        merge=not no_merge,
        gguf=gguf,
        ollama=ollama,
        card=not no_card,
        push=push,
        private=private,
        max_shard_size=max_shard_size,
        overwrite=overwrite,
        trust_remote_code=trust_remote_code,
    )
    result = export(subject_of(name), local_path(out), choices, ConsoleReporter())
    if as_json:
        print_json(result)
    else:
        _show(result, Path(out))


def _show(result: dict[str, Any], out: Path) -> None:
    print_table(["file", "size"], [[file["name"], _size(file["bytes"])] for file in result["files"]])
    kind = "merged model" if result["merged"] else result["kind"]
    print_lines("", f"{kind}, {result['parameters']:,} weights in {result['dtype']}: {out}")
    if result["pushed"] is not None:
        print_lines(f"uploaded to {result['pushed']}")


def _size(size: int) -> str:
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size = size / 1000  # type: ignore[assignment]
    return f"{size:.1f} GB"
