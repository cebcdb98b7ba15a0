"""Fetches the chart library again, by its pinned versions, through npm: ``python fetch.py``.

vega-interpreter is published as a module only: its one import and its one export are rewritten for a plain script.
"""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import tarfile
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
PACKAGES = {
    "vega": ("6.4.0", "build/vega.min.js"),
    "vega-lite": ("6.4.3", "build/vega-lite.min.js"),
    "vega-interpreter": ("2.3.2", "build/vega-interpreter.js"),
}


def fetch() -> dict[str, dict[str, str]]:
    """Write scripts and licences beside this file; returns version and digest by package."""
    facts = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, (version, script) in PACKAGES.items():
            packed = subprocess.run(
                ["npm", "pack", f"{name}@{version}", "--silent"], cwd=folder, check=True, capture_output=True, text=True
            )
            with tarfile.open(Path(folder) / packed.stdout.strip()) as package:
                text = _read(package, f"package/{script}")
                (HERE / f"{name}.LICENSE").write_text(_read(package, "package/LICENSE"), encoding="utf-8")
            text = re.sub(r"\n//# sourceMappingURL=.*\s*$", "\n", text)
            if name == "vega-interpreter":
                text = _as_script(text)
            (HERE / f"{name}.js").write_text(text, encoding="utf-8")
            facts[name] = {"version": version, "sha256": hashlib.sha256(text.encode()).hexdigest()}
    return facts


def _read(package: tarfile.TarFile, name: str) -> str:
    member = package.extractfile(name)
    assert member is not None, name
    return member.read().decode()


def _as_script(module: str) -> str:
    text, imports = re.subn(r"^import (\{.*?\}) from 'vega-util';", r"const \1 = vega;", module, flags=re.M)
    text, exports = re.subn(
        r"^export \{ expression as expressionInterpreter \};",
        "globalThis.vegaInterpreter = expression;",
        text,
        flags=re.M,
    )
    assert (imports, exports) == (1, 1), "vega-interpreter has changed its imports or exports"
    return f"(function () {{\n{text}}})();\n"


if __name__ == "__main__":
    versions = fetch()
    (HERE / "versions.json").write_text(json.dumps(versions, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(versions, indent=2))
