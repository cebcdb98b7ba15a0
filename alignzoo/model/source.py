"""Where a model is: a hub id, a local folder, a PEFT adapter, a ``.gguf`` file or what a plugin names."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from pathlib import Path

from transformers.utils import cached_file

from alignzoo.base.files import local_path
from alignzoo.contract.result import RESULT_FILE
from alignzoo.errors import ModelError
from alignzoo.model.explained import quiet
from alignzoo.model.named import place_of
from alignzoo.plan.planfile import PLAN_FILE

_ADAPTER_CONFIG = "adapter_config.json"


@dataclass(frozen=True)
class ModelSource:
    """Where a model's weights and tokenizer come from.

    Attributes:
        path: the argument of ``from_pretrained``: a hub id or a folder.
        gguf: the file inside ``path``, for a ``.gguf`` model.
        adapter: folder or hub id of an already trained PEFT adapter on top of ``path``.
    """

    path: str
    gguf: str | None = None
    adapter: str | None = None

    @property
    def base(self) -> str:
        """The base to name in an adapter's config: a local file or folder by absolute path, so that it is found from
        any working directory."""
        path = local_path(self.path)
        if not path.exists():
            return self.path
        return str((path / self.gguf if self.gguf else path).absolute())


def find_model(name: str, flag: str = "model") -> ModelSource:
    """Resolve ``--model``, or another ``flag`` that names one, without loading weights.

    Raises:
        ModelError: a path that does not exist or contains no model; a gguf file without the ``gguf`` package; an
            adapter without a usable base.
    """
    said, name = f"--{flag} {name}", place_of(name)
    config = _adapter_config(name)
    if config is None:
        return full_model(name, said)
    base = _base_of(config)
    if _adapter_config(base) is not None:
        raise ModelError(
            f"{config}: the base model {base} is itself an adapter",
            hint="merge that one into its own base first (merge_and_unload), and name the merged model as the base",
        )
    inner = full_model(base, f"{config}: base model {base}")
    return ModelSource(inner.path, inner.gguf, adapter=str(config.parent) if local_path(name).exists() else name)


def _adapter_config(name: str) -> Path | None:
    return file_of(name, _ADAPTER_CONFIG)


def file_of(name: str, file: str) -> Path | None:
    """``file`` in a folder or (fetched) in a hub repository; None if there is none."""
    path = local_path(name)
    if path.exists() or not is_hub_id(name):
        return path / file if (path / file).is_file() else None
    with contextlib.suppress(Exception), quiet():  # loading the repository gives a better error
        found = cached_file(
            name,
            file,
            _raise_exceptions_for_gated_repo=False,
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
        )
        return Path(found) if found else None
    return None


def is_hub_id(name: str) -> bool:
    """Whether a name that is not a local file or folder could be a hub repository."""
    return not (name.startswith((".", "/", "~")) or name.count("/") > 1 or name.endswith(".gguf"))


def _base_of(config: Path) -> str:
    """The base model that an adapter's config names."""
    try:
        content = json.loads(config.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{config} cannot be read: {error}", hint="save the adapter again with peft") from error
    if not isinstance(content, dict):
        raise ModelError(f"{config} is not a JSON object", hint="save the adapter again with peft")
    base = content.get("base_model_name_or_path")
    if not isinstance(base, str) or not base:
        raise ModelError(f"{config} names no base model", hint="merge the adapter into its base first")
    return base


def full_model(name: str, said: str, *, gguf: bool = True) -> ModelSource:
    """Resolve a model that is not an adapter; ``said`` names it in messages, ``gguf``: whether hints suggest one.

    Raises:
        ModelError: as :func:`find_model`.
    """
    name = place_of(name)
    path = local_path(name)
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise _no_model_in(path, said)
        return ModelSource(str(path))
    if path.suffix == ".gguf":
        return _gguf(path, said)
    if path.exists():
        raise ModelError(
            f"{said} is a file", hint=f"give a folder saved by transformers{', or a .gguf file' if gguf else ''}"
        )
    if not is_hub_id(name):
        raise ModelError(
            f"{said}: no such folder", hint=f"give a local folder{', a .gguf file' if gguf else ''} or a hub id"
        )
    return ModelSource(name)


def _no_model_in(folder: Path, said: str) -> ModelError:
    """The error for a folder without a model; for a run folder it says where the model is."""
    if not (folder / PLAN_FILE).is_file():
        return ModelError(f"{said}: no config.json in that folder", hint="give a folder written by save_pretrained")
    if not (folder / "model").is_dir() and (folder / RESULT_FILE).is_file():
        return ModelError(
            f"{said} is the folder of a run that did not keep its model", hint="run it again without --no-save-model"
        )
    if not (folder / "model").is_dir():
        return ModelError(
            f"{said} is the folder of a run that has not saved its model yet",
            hint=f"finish it first: alignzoo run --resume {folder}",
        )
    return ModelError(f"{said} is the folder of a run", hint=f"did you mean its model, {folder / 'model'}?")


def _gguf(path: Path, said: str) -> ModelSource:
    if not path.is_file():
        raise ModelError(f"{said}: no such file", hint="give the path of a .gguf file that exists")
    with path.open("rb") as file:
        if file.read(4) != b"GGUF":
            raise ModelError(
                f"{said} is not a GGUF file: it does not begin with GGUF",
                hint="download it again (it may be a web page or a Git LFS pointer), or give a folder",
            )
    with contextlib.suppress(ImportError):
        import gguf  # noqa: F401

        return ModelSource(str(path.parent), gguf=path.name)
    raise ModelError("a .gguf model needs the gguf package", hint="pip install 'alignzoo[gguf]'")
