#!/usr/bin/env bash
# Pins requirements/*.in to requirements/*.txt: exact versions, hashes, no addresses.
set -euo pipefail
cd "$(dirname "$0")/../requirements"
uv=${UV:-../.venv/bin/uv}
pin() {
  "$uv" pip compile --quiet --upgrade --python-version 3.11 --python-platform x86_64-manylinux_2_28 \
    --generate-hashes --no-header --no-annotate --no-emit-index-url --no-emit-find-links "$@"
}
pin dev.in -o dev.txt
for name in bootstrap operator sidecar examples; do
  # The same versions everywhere: what is tested is what is shipped.
  pin -c dev.txt "$name.in" -o "$name.txt"
done
