"""The model card of an export: ``README.md`` with the hub's metadata, from the facts of a run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from alignzoo.base.files import local_path
from alignzoo.plugin.registry import registry
from alignzoo.report import Reporter
from alignzoo_export.card_run import run_sections
from alignzoo_export.gguf_file import FILE as GGUF_FILE
from alignzoo_export.markdown import block, code, text
from alignzoo_export.run_facts import RunFacts, read_run, short_name

if TYPE_CHECKING:
    from alignzoo.session.subject import Subject

_UNNAMED = "OWNER/NAME"
_CHAT = (
    'messages = [{"role": "user", "content": "Hello!"}]',
    'inputs = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", '
    "return_dict=True)",
)
_PLAIN = ('inputs = tokenizer("Hello!", return_tensors="pt")',)


def model_card(subject: Subject, facts: dict[str, Any], report: Reporter, *, trust_remote_code: bool) -> str:
    """The card: of a run all that is known of it, of another model what it is and how to load it.

    Args:
        facts: of the export, as in its ``export.json``.

    Raises:
        AlignzooError: a file of the run is damaged.
    """
    run = None
    if subject.run is not None:
        run = read_run(subject.run, report, trust_remote_code=trust_remote_code)
    base = _base(subject, run)
    sections = [_introduction(subject, facts, base, run), "## How to use", _usage(facts, base)]
    if run is not None:
        sections += run_sections(run, facts)
    sections += ["## Licence", _licence(base)]
    if run is not None:
        sections += ["## Citation", _citation(run.folder)]
    front = yaml.safe_dump(_metadata(facts, base, run), sort_keys=False, allow_unicode=True)
    return f"---\n{front}---\n\n" + "\n\n".join(sections) + "\n"


def hub_id(name: str | None) -> str | None:
    """The name, if it is that of a repository on the hub: no local path, no ``.gguf`` file, nothing of a plugin's."""
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    if not name or local_path(name).exists() or name.endswith(".gguf") or name.startswith(("/", ".", "~")):
        return None
    if registry().named_extension("model", name) or registry().named_extension("data", name):
        return None
    try:
        validate_repo_id(name)
    except HFValidationError:
        return None
    return name


def _base(subject: Subject, run: RunFacts | None) -> str | None:
    """What the model was made from: a run's ``--model``, an adapter's base, or the exported model itself."""
    from alignzoo.model.source import find_model

    if run is not None:
        return subject.base
    source = find_model(subject.model)
    return source.path if source.adapter is not None else subject.model


def _metadata(facts: dict[str, Any], base: str | None, run: RunFacts | None) -> dict[str, Any]:
    """The hub's metadata; there is no licence, which only the publisher can state."""
    adapter = facts["kind"] == "adapter"
    metadata: dict[str, Any] = {
        "library_name": "peft" if adapter else "transformers",
        "pipeline_tag": "text-generation",
    }
    if hub_id(base) is not None:
        metadata["base_model"] = base
        relation = "adapter" if adapter else "finetune" if run is not None or facts["merged"] else None
        metadata |= {"base_model_relation": relation} if relation else {}
    if run is not None:
        parts = [summary for summary in run.data.values() if isinstance(summary, dict)]
        sources = [summary["source"] for summary in parts if "source" in summary]
        datasets = [source for source in dict.fromkeys(sources) if hub_id(source) is not None]
        metadata |= {"datasets": datasets} if datasets else {}
    named = [] if run is None else [name for name in run.method_names if name != "plain"]
    metadata["tags"] = [*dict.fromkeys(["alignzoo", *(["alignment"] if run is not None else []), *named])]
    return metadata


def _introduction(subject: Subject, facts: dict[str, Any], base: str | None, run: RunFacts | None) -> str:
    what = "A LoRA adapter" if facts["kind"] == "adapter" else "A language model"
    title, start = f"# {text(subject.label)}", code(short_name(base))
    with_version = f"[alignzoo](https://pypi.org/project/alignzoo/) {facts['alignzoo']}"
    if run is None:
        merged = ", with its adapter merged into it" if facts["merged"] else ""
        return f"{title}\n\n{what}, exported from {start}{merged} with {with_version}."
    objective = run.plan.objective() if run.plan is not None else str(run.content.get("sentence"))
    merged = " The LoRA adapter that was trained is merged into the weights." if facts["merged"] else ""
    how = f"fine-tuned from {start} with the objective **{text(objective)}** by {with_version}"
    return f"{title}\n\n{what}, {how}.{merged}"


def _usage(facts: dict[str, Any], base: str | None) -> str:
    adapter = facts["kind"] == "adapter"
    kind = "AutoPeftModelForCausalLM" if adapter else "AutoModelForCausalLM"
    lines = [
        *(
            ["from peft import AutoPeftModelForCausalLM", "from transformers import AutoTokenizer"]
            if adapter
            else ["from transformers import AutoModelForCausalLM, AutoTokenizer"]
        ),
        "",
        f'name = "{_UNNAMED}"  # or the folder',
        f"model = {kind}.from_pretrained(name)",
        "tokenizer = AutoTokenizer.from_pretrained(name)",
        *(_CHAT if facts["chat_template"] else _PLAIN),
        "output = model.generate(**inputs, max_new_tokens=256)",
        'print(tokenizer.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))',
    ]
    parts = [block("\n".join(lines), "python")]
    if adapter and hub_id(base) is None:
        parts.append(
            f"`adapter_config.json` names its base, {code(short_name(base))}, by a local path; edit "
            "`base_model_name_or_path` on another machine."
        )
    if "gguf" in facts:
        gguf = facts["gguf"]
        parts.append(f"`{GGUF_FILE}` has the same weights in {gguf['type']} for llama.cpp and programs built on it.")
    if "ollama" in facts:
        parts.append(f"For Ollama, in this folder: {code('ollama create NAME -f Modelfile')}")
    return "\n\n".join(parts)


def _licence(base: str | None) -> str:
    return (
        f"Not stated by alignzoo: the licence of the base model, {code(short_name(base))}, and the terms of the data "
        "apply. Add `license:` to the metadata at the top of this file before publishing."
    )


def _citation(folder: Path) -> str:
    from alignzoo.cli.cite import by_paper, entries_of, software

    entries = [paper.bibtex(key) for key, paper, _ in by_paper(entries_of(str(folder)))]
    return block("\n\n".join([*entries, software()]), "bibtex")
