#!/usr/bin/env bash
# The tests: sets up if need be. Arguments go to pytest, for instance ./run_tests.sh tests/test_proxy.py
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
if [[ "${1:-}" == "--help" || "${1:-}" == "-h" ]]; then
    echo "usage: ./run_tests.sh [ARGUMENTS of pytest]     all tests, or for instance tests/test_proxy.py -x"
    exit 0
fi

. ./.environment.sh
"$PYTHON" -c 'import pytest' 2>/dev/null || {
    echo "error: $PYTHON has the project but not pytest; run: pip install -c constraints.txt -e '.[test]'" >&2; exit 2; }
exec "$PYTHON" -m pytest "$@"
