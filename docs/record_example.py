"""Record the example of the README: run the main job on the sandbox and put its shortened output between the markers.

``python docs/record_example.py``. A test notices when the recorded run is of another sandbox model or recipe.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence

from alignzoo_sandbox import MODEL_PATH
from generate_methods import ROOT, with_block

from alignzoo.plan.recipe import find_recipe

WORDS = ["run", "--loss", "dpo", "--geometry", "shapo-token", "--robust", "drdpo", "--out", "runs/demo"]
PROGRESS = ("training ", "evaluating ", "reading ", "answering ")


def stamp() -> str:
    """What the recorded figures depend on besides the code: the sandbox's model and its recipe."""
    content = (MODEL_PATH / "model.safetensors").read_bytes() + find_recipe("alignzoo:sandbox").read_bytes()
    return hashlib.sha256(content).hexdigest()[:16]


def shortened(lines: Sequence[str]) -> list[str]:
    """The output with only the first and the last line of training, and no other progress."""
    training = [i for i, line in enumerate(lines) if line.startswith("training ")]
    kept = {training[0], training[-1]} if training else set()
    return [line for i, line in enumerate(lines) if i in kept or not line.startswith(PROGRESS)]


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "ALIGNZOO_CACHE": folder}  # a first run: no probe of an earlier one
        command = [sys.executable, "-m", "alignzoo", *WORDS]
        ended = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True)
    lines = [f"<!-- recorded: {stamp()} -->", "```text", *shortened(ended.stderr.splitlines()), "```"]
    readme = ROOT / "README.md"
    readme.write_text(with_block(readme, "example", lines), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
