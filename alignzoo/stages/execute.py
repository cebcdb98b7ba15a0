"""Run stages one after another; an interrupted run resumes at the stage where it stopped."""

from __future__ import annotations

import gc
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from alignzoo.base.files import check_links, write_json
from alignzoo.base.stop import interruptible
from alignzoo.base.stored import read_sealed, sealed
from alignzoo.contract.result import RESULT_FILE
from alignzoo.distributed.process import launched
from alignzoo.errors import AlignzooError, DamagedError, Interrupted, UsageError
from alignzoo.model.precision import launched_for
from alignzoo.plan.planfile import PLAN_FILE
from alignzoo.plan.recipe import Layer, flatten, read_recipe
from alignzoo.plugin.registry import resume_words
from alignzoo.report import Reporter
from alignzoo.runs.claim import Claim, claim_default, claim_new, claim_run
from alignzoo.runs.execute import execute, resume
from alignzoo.stages.generate import generate
from alignzoo.stages.merge import merge
from alignzoo.stages.parse import DATA_FILE, Stage, parse_stages
from alignzoo.version import __version__

STAGES_FILE = "stages.json"
"""The record of a run's stages, from which it is resumed."""
_TRUST = "trust-remote-code"


@dataclass(frozen=True)
class StagesResult:
    """Finished stages.

    Attributes:
        stages: by name: the result of each training run, or the folder or file that a stage wrote.
        model: the folder of the last model that was kept.
    """

    folder: str
    stages: dict[str, Any]
    model: str | None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def run_stages(
    recipe: str | Path | Mapping[str, Any], *, out: str | Path | None = None, report: Reporter | None = None
) -> StagesResult:
    """Run a recipe with stages from Python: its name, its file, or its words as a mapping.

    Raises:
        AlignzooError: and its kinds, as the command line's exit codes.
    """
    if isinstance(recipe, Mapping):
        words = dict(recipe)
        layer = Layer("python", stages=tuple(words.pop("stages", ())))
        layer = Layer("python", flatten(words, "the recipe"), stages=layer.stages)
    else:
        layer = read_recipe(str(recipe))
    return execute_stages([layer], out=None if out is None else Path(out), reporter=report or Reporter())


def folder_of(layers: Sequence[Layer], out: Path | None) -> Path:
    """The folder of a run of stages: as given, or from the recipe's name and the time."""
    given = next((layer.values["out"] for layer in reversed(layers) if "out" in layer.values), None)
    if out is not None or given is not None:
        return out or Path(str(given))
    name = next(layer.origin for layer in layers if layer.stages).rpartition(":")[2]
    return Path(f"runs/{Path(name).stem}-{datetime.now():%Y%m%d-%H%M%S}")


def execute_stages(layers: Sequence[Layer], *, out: Path | None = None, reporter: Reporter) -> StagesResult:
    """Run the stages of layered recipes and flags in a new folder."""
    folder = folder_of(layers, out)
    parse_stages(layers, folder)  # before the folder is made
    accelerator = launched()
    named = out is not None or any("out" in layer.values for layer in layers)
    claim: Claim | None = None
    if accelerator.is_main_process:
        claim = (claim_new if named else claim_default)(folder, reporter)
        folder = claim.folder
        write_json(folder / STAGES_FILE, sealed(_record(layers)))
    folder = Path(_from_main(accelerator, str(folder)))
    return _claimed(claim, parse_stages(layers, folder), folder, reporter, trusting=_trusting(layers))


def resume_stages(folder: Path, *, reporter: Reporter, trust_remote_code: bool = False) -> StagesResult:
    """Resume stages: finished ones are kept, an interrupted one continues, the others follow.

    Raises:
        AlignzooError: the record is damaged.
        UsageError: the run was started with ``--trust-remote-code``, which has to be set again.
    """
    check_links(folder, [STAGES_FILE])
    content = read_sealed(folder / STAGES_FILE)
    if content.get("trusting") and not trust_remote_code:
        raise UsageError(
            f"the run in {folder} lets its models run code, which a run folder cannot allow by itself",
            hint=f"if you trust them: {resume_words(folder, trusting=True)}",
        )
    layers = _layers(content, folder)
    if trust_remote_code:
        layers.append(Layer("flag", {_TRUST: True}))
    stages = parse_stages(layers, folder)
    claim = claim_run(folder, reporter) if launched().is_main_process else None
    return _claimed(claim, stages, folder, reporter, trusting=trust_remote_code)


def is_staged(folder: Path) -> bool:
    """Whether a folder is that of a run with stages."""
    return (folder / STAGES_FILE).is_file()


def _claimed(
    claim: Claim | None, stages: Sequence[Stage], folder: Path, reporter: Reporter, *, trusting: bool
) -> StagesResult:
    try:
        return _go(stages, folder, reporter, trusting=trusting)
    finally:
        if claim is not None:
            claim.release()


def _go(stages: Sequence[Stage], folder: Path, reporter: Reporter, *, trusting: bool) -> StagesResult:
    results: dict[str, Any] = {}
    for index, stage in enumerate(stages, start=1):
        reporter.note(f"stage {index} of {len(stages)}, {stage.name}: {stage.sentence()}")
        try:
            with interruptible():
                results[stage.name] = _run(stage, reporter, trusting=trusting)
        except KeyboardInterrupt as error:
            raise Interrupted(f"interrupted in stage {stage.name}", hint=_again(folder, trusting)) from error
        except AlignzooError as error:
            raise type(error)(
                f"stage {stage.name}: {error.message}", hint=_hint(error, stage, folder, trusting)
            ) from error
        gc.collect()
    models = [str(stage.folder / "model") for stage in stages if stage.action != "generate" and stage.keeps]
    result = StagesResult(str(folder), results, models[-1] if models else None)
    if launched().is_main_process:
        write_json(folder / RESULT_FILE, sealed(result.to_dict()))
    return result


def _run(stage: Stage, reporter: Reporter, *, trusting: bool) -> Any:
    if stage.action == "train":
        assert stage.plan is not None
        begun = (stage.folder / PLAN_FILE).is_file()
        if begun:
            return resume(stage.folder, reporter=reporter, trust_remote_code=trusting).to_dict()
        return execute(stage.plan, reporter=reporter).to_dict()
    written = stage.folder / ("model" if stage.action == "merge" else DATA_FILE)
    if written.exists():
        reporter.note(f"{written} is already there; nothing to do")
        return str(written)
    accelerator = launched() if stage.plan is None else launched_for(stage.plan, reporter)[1]
    if stage.action == "generate":
        generate(stage, accelerator, reporter)
    else:
        assert stage.weights is not None
        if accelerator.is_main_process:
            merge(stage.weights, stage.folder)
        accelerator.wait_for_everyone()
    return str(written)


def _hint(error: AlignzooError, stage: Stage, folder: Path, trusting: bool) -> str:
    """The error's own hint, with the stages' folder in place of the stage's."""
    again = _again(folder, trusting)
    own = error.hint or ""
    if str(stage.folder) in own and "--resume" in own:
        own = ""
    return "; ".join(part for part in (own, again) if part)


def _again(folder: Path, trusting: bool) -> str:
    return f"resume with: {resume_words(folder, trusting=trusting)}"


def _record(layers: Sequence[Layer]) -> dict[str, Any]:
    return {
        "alignzoo": __version__,
        "trusting": _trusting(layers),
        "layers": [
            {
                "origin": layer.origin,
                "values": {key: value for key, value in layer.values.items() if key not in ("out", _TRUST)},
                "stages": [dict(stage) for stage in layer.stages],
            }
            for layer in layers
        ],
    }


def _layers(content: Mapping[str, Any], folder: Path) -> list[Layer]:
    try:
        return [Layer(str(c["origin"]), dict(c["values"]), stages=tuple(c["stages"])) for c in content["layers"]]
    except (KeyError, TypeError, ValueError) as error:
        raise DamagedError(folder / STAGES_FILE, f"{error}", hint="start the run again") from error


def _trusting(layers: Sequence[Layer]) -> bool:
    return any(layer.values.get(_TRUST) in (True, "true", "yes") for layer in layers)


def _from_main(accelerator: Any, value: str) -> str:
    """The main process's value, on all ranks."""
    from accelerate.utils import broadcast_object_list

    values = [value]
    if accelerator.num_processes > 1:
        broadcast_object_list(values)
    return values[0]
