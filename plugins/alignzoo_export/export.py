"""A run or model as a folder that other programs load: weights, GGUF, Modelfile, model card."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignzoo.base.disk import stating
from alignzoo.base.files import whole, write_json, write_text
from alignzoo.base.stored import sealed
from alignzoo.errors import UsageError
from alignzoo.report import Reporter
from alignzoo.runs.claim import check_free
from alignzoo.version import __version__
from alignzoo_export.gguf_file import FILE as GGUF_FILE
from alignzoo_export.gguf_file import GgufType, Written, check_package, write_gguf
from alignzoo_export.push import check_repository, push
from alignzoo_export.weights import Dtype, Exported, check_space, load, save

if TYPE_CHECKING:
    from alignzoo.session.subject import Subject

FACTS_FILE = "export.json"
"""In an exported folder: what it is; only a folder with it may be overwritten."""
CARD_FILE, MODELFILE = "README.md", "Modelfile"
_GGUF_BYTES = {"f32": 4.0, "f16": 2.0, "bf16": 2.0, "q8_0": 34 / 32}
"""Per weight."""


@dataclass(frozen=True)
class Choices:
    """What to export.

    Attributes:
        gguf: the type of the weights in ``model.gguf``; None for no GGUF file.
        push: a repository of the hub.
    """

    dtype: Dtype = "keep"
    merge: bool = True
    gguf: GgufType | None = None
    ollama: bool = False
    card: bool = True
    push: str | None = None
    private: bool = False
    max_shard_size: str = "5GB"
    overwrite: bool = False
    trust_remote_code: bool = False

    def check(self) -> None:
        """Refuse choices that contradict each other.

        Raises:
            UsageError: they do, or a package or a name is missing.
        """
        if self.ollama and self.gguf is None:
            raise UsageError("--ollama needs a GGUF file", hint="add --gguf")
        if self.gguf is not None and not self.merge:
            raise UsageError("--gguf needs the merged model", hint="leave --no-merge out")
        if not self.merge and self.dtype != "keep":
            raise UsageError("--dtype has no effect on an adapter that is not merged", hint="leave --no-merge out")
        if self.private and self.push is None:
            raise UsageError("--private has no effect without --push", hint="add --push OWNER/NAME")
        _check_size(self.max_shard_size)
        if self.gguf is not None:
            check_package()
        if self.push is not None:
            check_repository(self.push)


def export(subject: Subject, out: Path, choices: Choices, report: Reporter) -> dict[str, Any]:
    """Export a model to a new folder; return what it contains.

    The weights appear in one piece: a failure before they are complete leaves nothing behind. What follows (GGUF, card,
    upload) leaves the weights in place if it fails.

    Raises:
        UsageError: contradicting choices, a folder that is not free, or a model that cannot be written as GGUF.
        AlignzooError: the model cannot be loaded, the disk is full, or the upload failed.
    """
    from alignzoo.model.source import find_model
    from alignzoo.plan.settings import Settings

    choices.check()
    _check_target(out, overwrite=choices.overwrite)
    settings = Settings(trust_remote_code=choices.trust_remote_code)
    exported = load(find_model(subject.model), settings, dtype=choices.dtype, merge=choices.merge)
    gguf_size = exported.parameters * _GGUF_BYTES[choices.gguf] if choices.gguf is not None else 0
    check_space(out, exported.size + int(gguf_size))
    facts = _facts(subject, exported)
    with stating(f"--out {out}", "choose a folder in a writable place"):
        _write_weights(out, exported, choices, facts)
        exported.model.to("meta")  # from here on the files are read
        return _finish(subject, out, exported, choices, facts, report)


def _check_size(text: str) -> None:
    """Refuse a ``--max-shard-size`` that is no size.

    Raises:
        UsageError: it is none.
    """
    if not re.fullmatch(r"[0-9]+ *[KMGT]B", text):
        raise UsageError(f"--max-shard-size {text} is no size", hint="write it as 500MB or 5GB")


def _finish(
    subject: Subject, out: Path, exported: Exported, choices: Choices, facts: dict[str, Any], report: Reporter
) -> dict[str, Any]:
    """GGUF, Modelfile, card and upload; a GGUF file that cannot be written is an error after the card."""
    written, refused = None, None
    if choices.gguf is not None:
        try:
            written = write_gguf(out, exported.model.config, exported.tokenizer, choices.gguf, subject.label, report)
        except UsageError as error:
            refused = error
    if written is not None:
        facts["gguf"] = _gguf_facts(written)
        if written.differs is not None:
            report.warn(
                f"transformers, which alignzoo loads .gguf files with, splits some text differently from {GGUF_FILE} "
                f"({written.pre_tokenizer}), such as {written.differs!r}; llama.cpp does not, and the folder is exact"
            )
    if choices.ollama and written is not None:
        facts["ollama"] = {"template": _write_modelfile(out, exported.tokenizer, report)}
    if choices.card:
        from alignzoo_export.card import model_card

        write_text(out / CARD_FILE, model_card(subject, facts, report, trust_remote_code=choices.trust_remote_code))
    write_json(out / FACTS_FILE, sealed(facts))
    if refused is not None:
        raise refused
    address = push(out, choices.push, private=choices.private) if choices.push is not None else None
    return {"out": str(out), **facts, "files": _files(out), "pushed": address}


def _check_target(out: Path, *, overwrite: bool) -> None:
    """Refuse a folder that is not free; ``overwrite`` replaces an earlier export, and nothing else."""
    if not (overwrite and (out / FACTS_FILE).is_file()):
        try:
            check_free(out)
        except UsageError as error:
            if (out / FACTS_FILE).is_file():
                raise UsageError(
                    f"--out {out} has an export already", hint="choose another folder, or add --overwrite"
                ) from error
            if overwrite and out.is_dir():
                raise UsageError(
                    f"--out {out} is no export, so --overwrite does not replace it", hint="choose another folder"
                ) from error
            raise


def _write_weights(out: Path, exported: Exported, choices: Choices, facts: dict[str, Any]) -> None:
    out.absolute().parent.mkdir(parents=True, exist_ok=True)
    with whole(out.absolute()) as folder:
        folder.mkdir()
        save(exported, folder, choices.max_shard_size)
        write_json(folder / FACTS_FILE, sealed(facts))


def _facts(subject: Subject, exported: Exported) -> dict[str, Any]:
    from alignzoo.model.base import without_adapter
    from alignzoo.model.weights import fingerprint

    architectures = getattr(without_adapter(exported.model).config, "architectures", None) or []
    return {
        "alignzoo": __version__,
        "label": subject.label,
        "from_run": subject.run is not None,
        "kind": "adapter" if hasattr(exported.model, "peft_config") else "model",
        "merged": exported.merged,
        "architecture": next(iter(architectures), None),
        "dtype": exported.dtype,
        "chat_template": exported.tokenizer.chat_template is not None,
        "parameters": exported.parameters,
        "weights": fingerprint(exported.model),
    }


def _gguf_facts(written: Written) -> dict[str, Any]:
    return {
        "file": written.path.name,
        "type": written.type,
        "architecture": written.architecture,
        "tokenizer": written.pre_tokenizer,
        "tensors": written.tensors,
        "same_in_transformers": written.differs is None,
    }


def _write_modelfile(out: Path, tokenizer: Any, report: Reporter) -> bool:
    """Write the Modelfile; whether it states the chat template."""
    from transformers import GenerationConfig

    from alignzoo_export.modelfile import modelfile

    ends = GenerationConfig.from_pretrained(out).eos_token_id if (out / "generation_config.json").is_file() else None
    ids = dict.fromkeys([tokenizer.eos_token_id, *(ends if isinstance(ends, list) else [ends])])
    stops = [tokenizer.convert_ids_to_tokens(index) for index in ids if index is not None]
    text, stated = modelfile(tokenizer, stops)
    write_text(out / MODELFILE, text)
    if not stated:
        report.note(
            f"{MODELFILE} has no TEMPLATE: the chat template is not a plain sequence of messages; Ollama recognises "
            "published templates in the GGUF file by their text, for others add a TEMPLATE"
        )
    return stated


def _files(out: Path) -> list[dict[str, Any]]:
    paths = sorted(path for path in out.rglob("*") if path.is_file())
    return [{"name": str(path.relative_to(out)), "bytes": path.stat().st_size} for path in paths]
