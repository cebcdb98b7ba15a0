"""Listings, help and completion start fast, because nothing heavy is imported."""

import os
import subprocess
import sys

import pytest

HEAVY = ("torch", "transformers", "datasets", "accelerate", "peft", "numpy")
IMPORTED = f"""
import sys
from alignzoo.cli.main import main
try:
    main(sys.argv[1:])
except SystemExit as end:
    assert not end.code, end.code
finally:
    print("imported:", *[name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)
"""


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["ls"],
        ["info", "drdpo"],
        ["run", "--help"],
        ["run", "--loss", "drdpo", "--geometry", "shapo-token", "--help"],
        ["run", "--loss", "drdpo", "--dry-run"],
        ["compat"],
        ["recipes", "list"],
        ["probe", "--help"],
    ],
    ids=" ".join,
)
def test_nothing_heavy_is_imported(words: list[str]) -> None:
    ended = subprocess.run([sys.executable, "-c", IMPORTED, *words], capture_output=True, text=True)
    assert ended.stderr.splitlines()[-1].strip() == "imported:"


def test_completion_offers_methods_and_their_options() -> None:
    def complete(line: str) -> str:
        count = str(len(line.split(" ")) - 1)
        env = {**os.environ, "_ALIGNZOO_COMPLETE": "bash_complete", "COMP_WORDS": line, "COMP_CWORD": count}
        return subprocess.run([sys.executable, "-c", IMPORTED], capture_output=True, text=True, env=env).stdout

    offered = complete("alignzoo run --loss dp").splitlines()
    assert "plain,dpo" in offered
    assert all(line.startswith("plain,dp") for line in offered)
    assert "plain,--loss.logps\n" in complete("alignzoo run --loss ipo --loss.l")
