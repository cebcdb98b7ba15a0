"""A run imports only what its plan uses."""

from __future__ import annotations

import subprocess
import sys

OTHERS = (
    *("peft", "bitsandbytes", "gguf", "lm_eval", "sklearn", "matplotlib", "ray", "optuna", "skopt", "vllm", "mergekit"),
    *("wandb", "mlflow", "tensorboard", "deepspeed", "torchvision", "nltk"),
)
"""What adapters, other weights, evaluations, sweeps, trackers and exports bring."""
IMPORTED = f"""
import sys
import datasets
import alignzoo.runs.generated, alignzoo.session.session, alignzoo.train.begin
from alignzoo.plan.recipe import Layer
from alignzoo.plan.resolve import resolve
from alignzoo.session.session import Session
resolve([Layer("test", {{"loss": "dpo"}})])
print(*[name for name in {OTHERS!r} if name in sys.modules])
"""


def test_a_plain_run_imports_nothing_that_only_others_use() -> None:
    ended = subprocess.run([sys.executable, "-c", IMPORTED], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == ""
