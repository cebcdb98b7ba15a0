#!/usr/bin/env bash
# Collect the wheels that benchmarks/gpu/check.sh needs on a machine that has torch, transformers, accelerate and peft
# and no network: alignzoo itself, TRL, and what they and the tests need beside those. benchmarks/gpu/collect.sh [FOLDER]
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
folder=${1:-$root/.whl}
python=${PYTHON:-python3}
version=${TARGET:-3.12}
mkdir -p "$folder"
rm -f "$folder"/*.whl
platforms=()
for n in 28 27 24 17; do platforms+=(--platform "manylinux_2_${n}_x86_64"); done
platforms+=(--platform manylinux2014_x86_64 --platform manylinux1_x86_64)
pinned() { grep -i "^$1==" "$root/constraints.txt" || { echo "$1 is not in constraints.txt" >&2; exit 1; }; }
needed=()
for name in datasets dill multiprocess xxhash pydantic pydantic_core annotated-types typing-inspection rich click \
  trl hypothesis sortedcontainers; do
  needed+=("$(pinned "$name")")
done
# Heads that benchmarks/head.py compares with; they run on a GPU only and are no dependency of anything else.
needed+=(liger-kernel==0.8.5 cut-cross-entropy==25.1.1)
"$python" -m pip download --quiet --no-deps --only-binary=:all: --python-version "$version" --implementation cp \
  "${platforms[@]}" --dest "$folder" "${needed[@]}"
"$python" -m pip wheel --quiet --no-deps --wheel-dir "$folder" "$root"
du -sh "$folder"
size=$(du -sm "$folder" | cut -f1)
[ "$size" -lt 64 ] || { echo "more than 64 MiB, which is what may come along to a borrowed machine" >&2; exit 1; }
