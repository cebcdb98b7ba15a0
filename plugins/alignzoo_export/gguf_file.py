"""GGUF files of llama-family models, written with the ``gguf`` package from an exported folder.

Names, metadata keys and the order of the rows of q and k are those of llama.cpp's ``convert_hf_to_gguf.py``; the tests
read the files with transformers and compare logits.
"""

from __future__ import annotations

import importlib.util
import math
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from alignzoo.base.files import whole
from alignzoo.errors import UsageError
from alignzoo.report import Reporter
from alignzoo_export.gguf_tokenizer import UnsupportedTokenizer, Vocabulary, differing, read_vocabulary

GgufType = Literal["f32", "f16", "bf16", "q8_0"]
FILE = "model.gguf"
_ARCHITECTURES = {"LlamaForCausalLM": "llama", "MistralForCausalLM": "llama", "Qwen2ForCausalLM": "qwen2"}
_Q8_BLOCK = 32
"""Values that share a scale in Q8_0; a row that they do not divide is stored in F16, as llama.cpp does."""


@dataclass(frozen=True)
class Written:
    """A GGUF file.

    Attributes:
        differs: a text that transformers encodes differently with the file's tokenizer; None if it encodes all probes
            the same.
    """

    path: Path
    type: GgufType
    architecture: str
    pre_tokenizer: str
    tensors: int
    differs: str | None


def check_package() -> None:
    """Refuse ``--gguf`` without the package.

    Raises:
        UsageError: it is not installed.
    """
    if importlib.util.find_spec("gguf") is None:
        raise UsageError("--gguf needs the gguf package", hint="pip install 'alignzoo[gguf]'")


def write_gguf(folder: Path, config: Any, tokenizer: Any, gguf_type: GgufType, name: str, report: Reporter) -> Written:
    """Write ``model.gguf`` into a folder with an exported model, from its safetensors.

    Args:
        config: of the saved model.
        name: of the model, as the file states it.

    Raises:
        UsageError: an architecture or a tokenizer that this cannot write; the hint names llama.cpp's converter.
        OSError: it cannot be written.
    """
    import gguf

    reason = unsupported(config)
    try:
        vocabulary = read_vocabulary(tokenizer, config.vocab_size)
    except UnsupportedTokenizer as error:
        reason = reason or str(error)
    if reason is not None:
        raise UsageError(
            f"no GGUF file was written: {reason}; the safetensors in {folder} are complete",
            hint=converter(folder, gguf_type),
        )
    architecture = _ARCHITECTURES[config.architectures[0]]
    with whole(folder / FILE) as path:
        writer = gguf.GGUFWriter(path, architecture)
        _add_config(writer, config, name, gguf_type)
        _add_vocabulary(writer, vocabulary)
        tensors = _tensors(folder, config, architecture, gguf_type)
        _write(writer, tensors, config, report)
    differs = differing(tokenizer, folder / FILE)
    return Written(folder / FILE, gguf_type, architecture, vocabulary.pre, len(tensors), differs)


def converter(folder: Path, gguf_type: GgufType = "f16") -> str:
    """How another program writes the GGUF file."""
    there, target = shlex.quote(str(folder)), shlex.quote(str(folder / FILE))
    return f"use llama.cpp's converter: python convert_hf_to_gguf.py {there} --outfile {target} --outtype {gguf_type}"


def unsupported(config: Any) -> str | None:
    """Why a model cannot be written; None if it can."""
    name = (config.architectures or ["?"])[0]
    if name not in _ARCHITECTURES:
        return f"{name} is not one of {', '.join(_ARCHITECTURES)}"
    rope = config.rope_parameters.get("rope_type", "default")
    head = config.hidden_size // config.num_attention_heads
    window = getattr(config, "sliding_window", None) if getattr(config, "use_sliding_window", True) else None
    reasons = {
        f"its rotary embeddings are scaled ({rope})": rope != "default",
        f"its activation is {config.hidden_act}": config.hidden_act not in ("silu", "swish"),
        "its attention or MLP has biases": bool(
            getattr(config, "attention_bias", False) or getattr(config, "mlp_bias", False)
        ),
        "it has sliding-window attention": window is not None,
        "its heads do not divide the hidden size": name == "Qwen2ForCausalLM"
        and (getattr(config, "head_dim", None) or head) != head,
    }
    return next((reason for reason, holds in reasons.items() if holds), None)


def _add_config(writer: Any, config: Any, name: str, gguf_type: GgufType) -> None:
    import gguf

    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    writer.add_type("model")
    writer.add_name(name)
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(head)
    writer.add_value_length(head)
    writer.add_rope_dimension_count(head)
    writer.add_rope_freq_base(float(config.rope_parameters["rope_theta"]))
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    file_type = "ALL_F32" if gguf_type == "f32" else f"MOSTLY_{gguf_type.upper()}"
    writer.add_file_type(gguf.LlamaFileType[file_type])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)


def _add_vocabulary(writer: Any, vocabulary: Vocabulary) -> None:
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(vocabulary.pre)
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(vocabulary.types)
    writer.add_token_merges(vocabulary.merges)
    for name, index in vocabulary.special.items():
        writer.add_uint32(f"tokenizer.ggml.{name}_token_id", index)
    writer.add_add_bos_token(vocabulary.add_bos)
    writer.add_add_space_prefix(False)
    if vocabulary.chat_template is not None:
        writer.add_chat_template(vocabulary.chat_template)


@dataclass(frozen=True)
class _Tensor:
    """A tensor of an exported folder and of the GGUF file.

    Attributes:
        kind: its GGML type.
    """

    file: Path
    key: str
    name: str
    shape: list[int]
    kind: Any

    @property
    def size(self) -> int:
        """In bytes, in the GGUF file."""
        import gguf

        block, size = gguf.GGML_QUANT_SIZES[self.kind]
        return math.prod(self.shape) // block * size


def _tensors(folder: Path, config: Any, architecture: str, gguf_type: GgufType) -> list[_Tensor]:
    """The tensors in the order of the safetensors, without reading them.

    Raises:
        UsageError: a weight that llama.cpp has no name for.
    """
    import gguf
    from safetensors import safe_open

    number = next(number for number, text in gguf.MODEL_ARCH_NAMES.items() if text == architecture)
    names = gguf.get_tensor_name_map(number, config.num_hidden_layers)
    found = []
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            for key in file.keys():  # noqa: SIM118 - safe_open cannot be iterated over
                name = names.get_name(key, try_suffixes=(".weight", ".bias"))
                if name is None:
                    raise UsageError(f"no GGUF file was written: it has no name for {key}", hint=converter(folder))
                shape = file.get_slice(key).get_shape()
                found.append(_Tensor(path, key, name, shape, _kind(shape, gguf_type)))
    return found


def _kind(shape: list[int], gguf_type: GgufType) -> Any:
    """Norms and biases stay in F32."""
    import gguf

    if len(shape) == 1:
        return gguf.GGMLQuantizationType.F32
    if gguf_type == "q8_0" and shape[-1] % _Q8_BLOCK:
        return gguf.GGMLQuantizationType.F16
    return gguf.GGMLQuantizationType[gguf_type.upper()]


def _write(writer: Any, tensors: list[_Tensor], config: Any, report: Reporter) -> None:
    """Header, metadata and table of tensors first, then the tensors one by one."""
    import gguf
    import numpy as np
    import torch
    from safetensors import safe_open

    for tensor in tensors:
        writer.add_tensor_info(tensor.name, tensor.shape, np.dtype(np.float32), tensor.size, raw_dtype=tensor.kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    with report.progress(len(tensors), "writing GGUF", unit="tensor") as progress:
        for tensor in tensors:
            with safe_open(tensor.file, framework="pt") as file:
                values = file.get_tensor(tensor.key).to(torch.float32).numpy()
            writer.write_tensor_data(gguf.quantize(_ordered(tensor.key, values, writer.arch, config), tensor.kind))
            progress.advance()
    writer.close()


def _ordered(key: str, values: Any, architecture: str, config: Any) -> Any:
    """Rows of q and k of a llama in the order of llama.cpp's rotary embeddings: pairs instead of halves."""
    heads = {
        "self_attn.q_proj.weight": config.num_attention_heads,
        "self_attn.k_proj.weight": config.num_key_value_heads,
    }
    count = next((heads[end] for end in heads if key.endswith(end)), None)
    if architecture != "llama" or count is None:
        return values
    halves = values.reshape(count, 2, values.shape[0] // count // 2, *values.shape[1:])
    return halves.swapaxes(1, 2).reshape(values.shape)
