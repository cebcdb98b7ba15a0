"""What bad input gets: an exit code, a message that says what is wrong, where and what to do, and nothing half made."""

from __future__ import annotations

import gzip
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from alignzoo_sandbox import MODEL_PATH, preference_rows
from run_helpers import Az, MakeModel, RunFolder, Start, plain_rows, strict_json, tiny_model, write_rows
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    BertConfig,
    BertForMaskedLM,
    BertModel,
    T5Config,
    T5ForConditionalGeneration,
)

from alignzoo.train.checkpoint import load_checkpoint, step_of, whole_checkpoints

Command = Callable[..., list[str]]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def refused(ended: subprocess.CompletedProcess[str], code: int, *parts: str) -> None:
    """It ended with this exit code, says these things on stderr, and says them to programs on stdout."""
    assert ended.returncode == code, ended.stderr
    for part in parts:
        assert part in ended.stderr
    assert "Traceback" not in ended.stderr
    assert "internal error" not in ended.stderr
    error = strict_json(ended.stdout)["error"]
    assert error["exit_code"] == code
    assert f"{error['message']} {error['hint']}".strip()


@pytest.mark.parametrize(
    ("line", "code", "parts"),
    [
        ("--loss dpoo", 2, ["unknown loss 'dpoo'", "did you mean dpo"]),
        ("--loss.beta -1", 2, ["--loss.beta", "greater than 0"]),
        ("--lr 0", 2, ["--lr", "greater than 0"]),
        ("--robust drdpo --robust drdpo", 3, ["--robust drdpo is named twice", "name each method once"]),
        ("--geometry shapo-token --probe.share 0", 2, ["needs a safety probe", "raise --probe.share"]),
        ("--lora.alpha 8", 2, ["--lora.alpha has no effect here", "add --lora.r"]),
    ],
)
def test_methods_and_options(line: str, code: int, parts: list[str], az: Az, command: Command, out: Path) -> None:
    refused(az(*command(out, *line.split(), "--json")), code, *parts)
    assert not out.exists()


def test_the_process_itself_ends_so(start: Start, command: Command, out: Path, tmp_path: Path) -> None:
    process = start(*command(out, "--json", data=tmp_path / "absent.jsonl"))
    stdout, stderr = process.communicate(timeout=200)
    refused(
        subprocess.CompletedProcess((), process.returncode, stdout, stderr), 1, f"{tmp_path}/absent.jsonl: no such file"
    )
    assert not out.exists()


@pytest.mark.parametrize(
    "line", ["run --resume {}", "sharpness {}", "run --model {} --data sandbox", "run --model sandbox --data {}"]
)
def test_names_too_long(line: str, az: Az, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    refused(az(*line.format("x" * 300).split(), "--json"), 2, "is too long for a file or folder name")
    assert list(tmp_path.rglob("*")) in ([], [tmp_path / "runs"])


def test_an_out_that_is_too_long(az: Az, command: Command, out: Path) -> None:
    words = command(out.with_name("x" * 300), "--json")
    refused(az(*words), 2, "cannot be written: File name too long", "use a shorter name")


GOOD = plain_rows(40)
BLANK = {"prompt": "How?", "chosen": " ", "rejected": "So."}
SAME = {"prompt": "How?", "chosen": "So.", "rejected": "So."}
LONG = {"prompt": "How? " * 300, "chosen": "So.", "rejected": "Not so."}


@pytest.mark.parametrize(
    ("rows", "parts"),
    [
        ([*GOOD[:2], '{"prompt": "a", "chosen": ', *GOOD[2:]], ["FILE:3: not valid JSON"]),
        ([GOOD[0], "", {**GOOD[1], "chosen": 7}, *GOOD[2:]], ["FILE:3: field 'chosen' is a number", "line 1", "text"]),
        ([*GOOD[:5], {"prompt": "a", "chosen": "b"}, *GOOD[5:]], ["FILE:6", "'rejected'"]),
        ([GOOD[0], '["a", "b"]', *GOOD[1:]], ["FILE:2", "expected an object"]),
        (["", ""], ["FILE", "empty"]),
        (
            [{"question": "a", "good": "b", "bad": "c"}],
            ["no known preference layout", "question (text)", "--data.format"],
        ),
        ([SAME] * 3, ["FILE", "identical-sides", "3"]),
        ([BLANK, SAME, LONG], ["FILE", "empty-chosen", "identical-sides", "prompt"]),
    ],
    ids=[
        "not-json",
        "wrong-type",
        "missing-field",
        "not-an-object",
        "empty",
        "unknown-layout",
        "identical-sides",
        "no-usable-pair",
    ],
)
def test_data(
    rows: list[dict[str, Any] | str], parts: list[str], az: Az, command: Command, out: Path, tmp_path: Path
) -> None:
    file = write_rows(tmp_path / "bad.jsonl", rows)
    refused(
        az(*command(out, "--data.strict", "--json", data=file)),
        1,
        *(part.replace("FILE", str(file)) for part in parts),
    )
    assert not out.exists()


@pytest.mark.parametrize("damage", ["utf-8", "gzip"])
def test_data_that_is_not_text(damage: str, az: Az, command: Command, out: Path, tmp_path: Path) -> None:
    text = write_rows(tmp_path / "text.jsonl", GOOD).read_bytes()
    if damage == "utf-8":
        file, says = tmp_path / "bad.jsonl", "bad.jsonl:3: not UTF-8 text (byte 0xff)"
        lines = text.splitlines(keepends=True)
        file.write_bytes(b"".join([*lines[:2], lines[2].replace(b"mend", b"\xff\xfe"), *lines[3:]]))
    else:
        file, says = tmp_path / "bad.jsonl.gz", "bad.jsonl.gz: incomplete or corrupt gzip file"
        file.write_bytes(gzip.compress(text)[:-20])
    refused(az(*command(out, "--json", data=file)), 1, says)
    assert not out.exists()


def test_unusable_rows_are_named_and_the_others_train(az: Az, command: Command, out: Path, tmp_path: Path) -> None:
    file = write_rows(tmp_path / "mixed.jsonl", [BLANK, SAME, *GOOD, SAME])
    ended = az(*command(out, data=file, **{"max-steps": 1}))
    assert ended.returncode == 0, ended.stderr
    for row in ("dropped: identical-sides 2 rows 1, 42", "dropped: empty-chosen 1 rows 0", "pairs kept 40"):
        assert row in [" ".join(line.split()) for line in ended.stderr.splitlines()]
    summary = json.loads((out / "data.json").read_text())["train"]
    assert (summary["rows"], summary["kept"]) == (43, 40)
    assert summary["dropped"]["identical-sides"] == {"count": 2, "rows": [1, 42]}
    assert summary["dropped"]["empty-chosen"] == {"count": 1, "rows": [0]}


def test_nothing_left_to_train_on(az: Az, command: Command, out: Path, tmp_path: Path) -> None:
    file = write_rows(tmp_path / "few.jsonl", GOOD[:3])
    words = command(out, "--json", data=file, **{"eval-share": 0.999, "probe.share": None})
    refused(az(*words), 1, "no pairs are left to train on after holding out 3", "lower --eval-share")
    assert not out.exists()


def test_eval_data_is_checked_as_well(az: Az, command: Command, out: Path, tmp_path: Path) -> None:
    refused(az(*command(out, "--json", **{"eval-data": tmp_path / "absent.csv"})), 1, "absent.csv: no such file")
    assert not out.exists()


def test_no_such_split_or_layout(az: Az, command: Command, out: Path) -> None:
    refused(az(*command(out, "--json", **{"data.split": "test"})), 1, "no split 'test'", "--data.split: train")
    refused(az(*command(out, "--json", **{"data.format": "explict"})), 2, "no such layout", "did you mean explicit?")
    assert not out.exists()


def test_model_paths(az: Az, command: Command, out: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "model.bin").write_text("x")
    for model, parts in (
        (tmp_path / "absent", ["absent: no such folder", "hub id"]),
        (tmp_path / "absent.gguf", ["absent.gguf: no such file"]),
        (tmp_path / "empty", ["no config.json in that folder", "save_pretrained"]),
        (tmp_path / "model.bin", ["model.bin is a file", "give a folder"]),
    ):
        refused(az(*command(out, "--json", model=model)), 1, *parts)
        assert not out.exists()


@pytest.fixture
def with_tokenizer(make_model: MakeModel) -> Callable[[Path], Path]:
    """Gives a folder the tokenizer files of a working model."""

    def copy(folder: Path) -> Path:
        folder.mkdir(exist_ok=True)
        for file in make_model().iterdir():
            if file.name.startswith(("tokenizer", "chat_template")):
                shutil.copy(file, folder)
        return folder

    return copy


@pytest.mark.parametrize("kind", ["encoder-decoder", "encoder", "masked", "nonsense"])
def test_not_a_causal_model(
    kind: str, az: Az, command: Command, out: Path, tmp_path: Path, with_tokenizer: Callable[[Path], Path]
) -> None:
    folder = with_tokenizer(tmp_path / "model")
    if kind == "encoder-decoder":
        size = {"vocab_size": 900, "d_model": 16, "d_kv": 4, "d_ff": 32, "num_layers": 1, "num_heads": 2}
        T5ForConditionalGeneration(T5Config(**size)).save_pretrained(folder)
    elif kind in ("encoder", "masked"):
        size = {"vocab_size": 900, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
        encoder = BertModel if kind == "encoder" else BertForMaskedLM
        encoder(BertConfig(intermediate_size=32, initializer_range=0.2, **size)).save_pretrained(folder)
    else:
        (folder / "config.json").write_text('{"model_type": "abacus"}')
    says = {"nonsense": "does not recognize this architecture", "masked": "depend on later tokens"}
    ended = az(*command(out, "--json", model=folder))
    refused(ended, 1, str(folder), says.get(kind, "causal language model"))
    assert not out.exists()


def test_incomplete_model_files(
    az: Az, command: Command, out: Path, tmp_path: Path, make_model: MakeModel, with_tokenizer: Callable[[Path], Path]
) -> None:
    no_weights = with_tokenizer(tmp_path / "no-weights")
    shutil.copy(make_model() / "config.json", no_weights)
    refused(az(*command(out, "--json", model=no_weights)), 1, "cannot load the model", str(no_weights))
    truncated = with_tokenizer(tmp_path / "truncated")
    shutil.copy(make_model() / "config.json", truncated)
    whole = (make_model() / "model.safetensors").read_bytes()
    (truncated / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    refused(az(*command(out, "--json", model=truncated)), 1, "cannot load the model", str(truncated))
    lacking = with_tokenizer(tmp_path / "lacking")
    shutil.copy(make_model() / "config.json", lacking)
    weights = load_file(make_model() / "model.safetensors")
    del weights["model.layers.1.mlp.down_proj.weight"]
    save_file(weights, lacking / "model.safetensors", metadata={"format": "pt"})
    refused(az(*command(out, "--json", model=lacking)), 1, str(lacking), "model.layers.1.mlp.down_proj.weight")
    pickled = with_tokenizer(tmp_path / "pickled")
    shutil.copy(make_model() / "config.json", pickled)
    torch.save(load_file(make_model() / "model.safetensors"), pickled / "pytorch_model.bin")
    says = (f"cannot load the model of {pickled}: it has no model.safetensors", "safetensors only", "save them again")
    refused(az(*command(out, "--json", model=pickled)), 1, *says)
    no_tokenizer = tmp_path / "no-tokenizer"
    no_tokenizer.mkdir()
    for name in ("config.json", "model.safetensors"):
        shutil.copy(make_model() / name, no_tokenizer)
    refused(az(*command(out, "--json", model=no_tokenizer)), 1, "cannot load the tokenizer", str(no_tokenizer))
    assert not out.exists()


def test_a_damaged_adapter(az: Az, command: Command, out: Path, tmp_path: Path, make_model: MakeModel) -> None:
    file = tmp_path / "adapter" / "adapter_config.json"
    file.parent.mkdir()
    for content, parts in (
        ("{", ["cannot be read", "save the adapter again"]),
        ("[1]", ["is not a JSON object", "save the adapter again"]),
        (json.dumps({"base_model_name_or_path": str(file.parent)}), ["is itself an adapter", "merge"]),
        (json.dumps({"base_model_name_or_path": str(make_model())}), ["cannot load the adapter"]),
    ):
        file.write_text(content)
        refused(az(*command(out, "--json", model=file.parent)), 1, str(file.parent), *parts)
        assert not out.exists()


def test_no_chat_template_with_chat_data(az: Az, command: Command, out: Path, make_model: MakeModel) -> None:
    model = make_model("llama", chat_template=False, name="no-template")
    refused(az(*command(out, "--json", model=model)), 1, "chat template")
    assert not out.exists()


def test_out_is_not_empty(az: Az, command: Command, out: Path, tmp_path: Path) -> None:
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    refused(az(*command(out, "--json")), 2, f"--out {out} exists and is not empty", "choose another folder")
    assert [path.name for path in out.iterdir()] == ["notes.txt"]
    file = tmp_path / "file"
    file.write_text("mine")
    refused(az(*command(file, "--json")), 2, f"--out {file} exists and is not empty")
    assert file.read_text() == "mine"
    run = tmp_path / "run"
    assert az(*command(run)).returncode == 0
    refused(az(*command(run, "--json")), 2, f"--out {run} exists", f"resume that run with --resume {run}")


def test_out_cannot_be_written(az: Az, command: Command, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    refused(az(*command(tmp_path / "file" / "out", "--json")), 1, str(tmp_path / "file"), "--out")


def test_a_probe_whose_out_cannot_be_used(az: Az, tmp_path: Path, pairs: Path) -> None:
    """It is refused before the data is read: here there is none."""
    words = ["probe", "--model", "sandbox", "--data", str(tmp_path / "absent.jsonl"), "--json"]
    refused(
        az(*words, "--out", "/dev/null/x"),
        1,
        "--out /dev/null/x cannot be written: Not a directory",
        "in a writable place",
    )
    (tmp_path / "held").mkdir()
    (tmp_path / "held" / "notes.txt").write_text("mine")
    refused(az(*words, "--out", str(tmp_path / "held")), 2, "exists and is not empty", "choose another folder")
    refused(az(*words, "--out", str(tmp_path / "probe")), 1, "absent.jsonl: no such file")
    assert not (tmp_path / "probe").exists()
    good = ["probe", "--model", "sandbox", "--data", str(pairs), "--json", "--out", str(tmp_path / "probe")]
    assert az(*good).returncode == 0
    assert {path.name for path in (tmp_path / "probe").iterdir()} >= {"probe.safetensors", "probe.json"}


def test_repaired_the_same_command_works(az: Az, command: Command, out: Path, tmp_path: Path) -> None:
    """Whether the run folder is to be made or there already, a failed start leaves it as it was."""
    file = tmp_path / "data.jsonl"
    words = command(out, data=file, geometry="shapo-token", **{"label-noise": 0.2})
    assert az(*words).returncode == 1  # no such file
    write_rows(file, GOOD[:20])
    assert az(*words).returncode == 1  # too few for the probe, after the data was loaded
    assert not out.exists()
    out.mkdir()
    assert az(*words).returncode == 1
    assert list(out.iterdir()) == []
    write_rows(file, plain_rows(80))
    ended = az(*words)
    assert ended.returncode == 0, ended.stderr


def test_resume_of_something_else(az: Az, command: Command, out: Path, tmp_path: Path) -> None:
    refused(az("run", "--resume", str(tmp_path / "absent"), "--json"), 1, "is not an alignzoo run folder")
    refused(
        az("run", "--resume", str(MODEL_PATH), "--json"), 1, "contains no plan.yaml", "--out folder of an earlier run"
    )
    assert az(*command(out)).returncode == 0
    (out / "result.json").unlink()
    plan = (out / "plan.yaml").read_text()
    for damage in ("[", "just: words", plan.replace("loss:", "lost:"), plan.replace("digest:", "digits:")):
        (out / "plan.yaml").write_text(damage)
        refused(az("run", "--resume", str(out), "--json"), 1, f"{out / 'plan.yaml'} is damaged", "another --out")


def test_resume_when_data_or_model_have_changed(
    az: Az, command: Command, out: Path, tmp_path: Path, make_model: MakeModel
) -> None:
    file = write_rows(tmp_path / "data.jsonl", preference_rows("train", 40))
    model = tmp_path / "model"
    shutil.copytree(make_model(), model)
    assert az(*command(out, data=file, model=model, **{"probe.share": 0})).returncode == 0
    (out / "result.json").unlink()
    facts = (out / "data.json").read_text()
    write_rows(file, preference_rows("train", 41))
    refused(
        az("run", "--resume", str(out), "--json"), 1, f"the data of {file} changed since this run started", "new run"
    )
    assert (out / "data.json").read_text() == facts
    write_rows(file, preference_rows("train", 40))
    weights = load_file(model / "model.safetensors")
    weights["model.norm.weight"][3] += 1e-3
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    refused(
        az("run", "--resume", str(out), "--json"),
        1,
        f"the weights of {model} changed since this run started",
        "new run",
    )


def test_a_loss_that_explodes(az: Az, command: Command, out: Path) -> None:
    """The steps before the explosion are on the disk, and loadable; the step of the explosion changes nothing."""
    given = {"optimizer": "sgd", "max-grad-norm": 0, "eval-share": 0, "save-every": 1, "max-steps": 9}
    ended = az(*command(out, "--json", lr=1e12, schedule="constant", **{**given, "warmup-steps": 0}))
    refused(ended, 1, "; rows ", "try a lower --lr")
    exploded = re.search(r"step (\d+): (the loss|the gradient's norm) is (nan|inf)", ended.stderr)
    assert exploded is not None
    assert len(RunFolder(out).metrics) == int(exploded[1]) - 1
    assert not (out / "model").exists()
    refused(az("run", "--resume", str(out), "--json"), 1, exploded[0])


def test_a_row_that_is_poison(az: Az, command: Command, out: Path, tmp_path: Path, make_model: MakeModel) -> None:
    """One token's embedding is NaN: the run stops at the step that meets it and names the rows that contain it."""
    model, file = tmp_path / "model", tmp_path / "data.jsonl"
    shutil.copytree(make_model(), model)
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    rare = tokenizer.encode("~", add_special_tokens=False)[-1]
    weights = load_file(model / "model.safetensors")
    weights["model.embed_tokens.weight"][rare] = torch.nan
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    rows = plain_rows(40)
    rows[17] = {**rows[17], "chosen": rows[17]["chosen"] + " ~"}
    write_rows(file, rows)
    given = {"model": model, "data": file, "probe.share": 0}
    ended = az(*command(out, "--json", **given, **{"eval-share": 0, "save-every": 1, "max-steps": 5}))
    steps = len(RunFolder(out).metrics)
    refused(ended, 1, f"step {steps + 1}: the loss is nan; rows 17\n")
    good = whole_checkpoints(out)[-1]
    assert f"the last good checkpoint is {good}" in ended.stderr
    assert step_of(good) == steps > 0
    for tensor in load_checkpoint(good).weights.values():
        assert torch.isfinite(tensor[: rare - 1] if tensor.dim() == 2 and len(tensor) > rare else tensor).all()
    held_out = write_rows(tmp_path / "held.jsonl", [rows[17], rows[18]])
    held = az(*command(out.with_name("held"), "--json", **given, **{"eval-data": held_out}))
    refused(held, 1, "the objective on held-out rows is nan after step 0; rows 0\n")
    assert not out.with_name("held").exists()


def test_an_explosion_at_the_last_step(az: Az, command: Command, out: Path) -> None:
    """No further step would notice; the evaluation after the run does, and no model or result is left to mislead."""
    given = {"optimizer": "sgd", "max-grad-norm": 0, "warmup-steps": 0, "max-steps": 1}
    ended = az(*command(out, "--json", lr=1e12, **given))
    refused(ended, 1, "the objective on held-out rows is nan after step 1", "try a lower --lr")
    assert not (out / "model").exists()
    assert not (out / "result.json").exists()
    strict_json((out / "evaluation.json").read_text())


def test_unknown_optimizer(az: Az, command: Command, out: Path) -> None:
    refused(az(*command(out, "--json", optimizer="adamm")), 2, "no such optimizer", "did you mean adam")
    refused(az(*command(out, "--json", optimizer="lbfgs")), 2, "no such optimizer")
    words = command(out, "--json", optimizer="rprop", **{"weight-decay": 0.1})
    refused(az(*words), 2, "--weight-decay has no effect here", "rprop")
    assert not out.exists()


def test_a_tracker_that_is_not_installed(az: Az, command: Command, out: Path) -> None:
    refused(az(*command(out, "--json", track="wandb")), 2, "--track wandb", "pip install 'alignzoo[wandb]'")
    assert not out.exists()


def test_a_tokenizer_of_another_model(
    az: Az, command: Command, out: Path, tmp_path: Path, with_tokenizer: Callable[[Path], Path]
) -> None:
    """A tokenizer with ids that the model has no embeddings for."""
    folder = with_tokenizer(tmp_path / "model")
    tiny_model("llama", 300, 0, 0).save_pretrained(folder)
    assert AutoModelForCausalLM.from_pretrained(folder).config.vocab_size == 300
    refused(az(*command(out, "--json", model=folder)), 1, f"the tokenizer of {folder}", "the model has 300 embeddings")
    assert not out.exists()
