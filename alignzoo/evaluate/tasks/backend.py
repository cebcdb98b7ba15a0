"""vLLM instead of transformers for generation and tasks, through lm-eval's own adapter: ``--backend vllm``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from alignzoo.base.files import local_path
from alignzoo.base.stored import read_object
from alignzoo.errors import AlignzooError, UsageError
from alignzoo.generate.decoding import Decoding, Response

BACKENDS = ("native", "vllm")
_ADAPTER = "adapter_config.json"
_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""What vLLM takes as ``max_lora_rank``."""


def check_backend(backend: str, *, quantize: str = "none") -> None:
    """Check that a backend is there, before anything else is loaded.

    Raises:
        UsageError: it does not do what another setting asks for.
        AlignzooError: its package is not installed.
    """
    if backend == "vllm" and quantize != "none":
        raise UsageError(f"--backend vllm does not take --quantize {quantize}", hint="leave one of the two out")
    if backend == "vllm" and find_spec("vllm") is None:
        raise AlignzooError(
            "--backend vllm needs the package vllm, which is not installed",
            hint='pip install "alignzoo[vllm]" (CUDA), or leave --backend out',
        )


def vllm_arguments(model: str, *, dtype: str = "auto", seed: int = 0, max_length: int | None = None) -> dict[str, Any]:
    """Arguments of lm-eval's ``VLLM`` for a model: an adapter is given with its base.

    Args:
        model: a folder, or a name on the hub.

    Raises:
        UsageError: vLLM cannot load the model: a GGUF file, or an adapter that is more than LoRA on one base.
        DamagedError: the adapter's config cannot be read.
    """
    arguments: dict[str, Any] = {"dtype": dtype, "seed": seed}
    if max_length is not None:
        arguments["max_model_len"] = max_length
    folder = local_path(model)
    if model.endswith(".gguf"):
        raise UsageError(f"--backend vllm does not take {model}", hint="leave --backend out for GGUF files")
    if not (folder / _ADAPTER).is_file():
        return {"pretrained": model, **arguments}
    return {**_adapted(folder), **arguments}


def vllm_model(model: str, **settings: Any) -> Any:
    """lm-eval's ``VLLM`` with a model, which :func:`~alignzoo.evaluate.tasks.harness.run_tasks` takes as its session.

    Args:
        settings: of :func:`vllm_arguments`.

    Raises:
        AlignzooError: vLLM is not installed, or does not load the model.
    """
    check_backend("vllm")
    arguments = vllm_arguments(model, **settings)
    try:
        from lm_eval.models.vllm_causallms import VLLM

        return VLLM(**arguments)
    except Exception as error:
        [reason, *_] = str(error).strip().splitlines() or [type(error).__name__]
        raise AlignzooError(
            f"vLLM does not load {model}: {reason}",
            hint=f"leave --backend out, or write a plain checkpoint first: alignzoo export {model}",
        ) from error


def vllm_responses(model: Any, prompts: Sequence[str], decoding: Decoding) -> Iterator[tuple[int, Response]]:
    """``(index, response)`` of each prompt's text, by lm-eval's ``VLLM``.

    Sampling follows vLLM's generators: the same seed gives other responses than without it.

    Args:
        model: of :func:`vllm_model`.
    """
    ids = [list(model.tok_encode(prompt)) for prompt in prompts]
    room = model.max_length - decoding.max_new_tokens
    outputs = model._model_generate(
        requests=[tokens[-room:] for tokens in ids],
        generate=True,
        sampling_params=_sampling(decoding, len(ids)),
    )
    for index, output in enumerate(outputs):
        [answer] = output.outputs
        yield index, Response(answer.text, len(answer.token_ids), answer.finish_reason == "stop")


def _sampling(decoding: Decoding, count: int) -> list[Any]:
    """vLLM's sampling parameters, one set a prompt, each with its seed."""
    from vllm import SamplingParams

    shared: dict[str, Any] = {
        "max_tokens": decoding.max_new_tokens,
        "temperature": decoding.temperature,
        "top_p": decoding.top_p,
        "top_k": decoding.top_k or -1,
        "stop": list(decoding.until) or None,
    }
    return [SamplingParams(**shared, seed=decoding.seed + index) for index in range(count)]


def _adapted(folder: Path) -> Mapping[str, Any]:
    config = read_object(folder / _ADAPTER)
    rank = int(config.get("r") or 0)
    plain = config.get("peft_type") == "LORA" and not config.get("modules_to_save")
    base = config.get("base_model_name_or_path")
    fitting = next((known for known in _RANKS if plain and rank <= known), None)
    if fitting is None or not base:
        raise UsageError(
            f"vLLM does not take the adapter in {folder}",
            hint=f"merge it into its base first: alignzoo export {folder}, and evaluate that",
        )
    arguments = {"pretrained": str(base), "lora_local_path": str(folder), "max_lora_rank": fitting}
    return {**arguments, "tokenizer": str(folder)} if (folder / "tokenizer.json").is_file() else arguments
