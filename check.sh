#!/usr/bin/env bash
# Lint, format, types and the rules of the house, in seconds: nothing here imports torch.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
if [[ "${1:-}" == "--help" || "${1:-}" == "-h" ]]; then
    echo "usage: ./check.sh     lint, format, types, who may import whom; ./check.sh --fix mends what can be mended by itself"
    exit 0
fi

. ./.environment.sh
"$PYTHON" -c 'import ruff, pyrefly' 2>/dev/null || {
    echo "error: $PYTHON has the project but not its tests' tools; run: pip install -c constraints.txt -e '.[test]'" >&2; exit 2; }
if [[ "${1:-}" == "--fix" ]]; then
    "$PYTHON" -m ruff check --quiet --fix .
    "$PYTHON" -m ruff format --quiet .
fi
"$PYTHON" -m ruff check --quiet .
"$PYTHON" -m ruff format --quiet --check .
types=("$PYTHON" -m pyrefly check --python-interpreter-path "$PYTHON" --output-format min-text --summary none)
"${types[@]}" osdtw_lib
"${types[@]}" --preset default osdtw_lib/{errors,legible,longtail}.py osdtw_lib/{config,inference}
"$PYTHON" -m pytest --noconftest tests/test_house.py
