#!/usr/bin/env bash
# The tests: sets up if need be. Arguments go to pytest, for instance ./run_tests.sh tests/proxy
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
if [[ "${1:-}" == "--help" || "${1:-}" == "-h" ]]; then
    echo "usage: ./run_tests.sh                          all tests, on every core"
    echo "       ./run_tests.sh --fast                   without whole ways through (notebooks, kills, browser, several processes) and long series"
    echo "       ./run_tests.sh [ARGUMENTS of pytest]    for instance tests/proxy -x"
    exit 0
fi

. ./.environment.sh
"$PYTHON" -c 'import pytest, xdist' 2>/dev/null || {
    echo "error: $PYTHON has the project but not pytest and pytest-xdist; run: pip install -c constraints.txt -e '.[test]'" >&2; exit 2; }
unset PYTHONDONTWRITEBYTECODE  # they start a hundred processes, which would each compile the library again
export OMP_WAIT_POLICY="${OMP_WAIT_POLICY:-PASSIVE}"  # processes share the cores here: none may spin while it waits
# which tests share a process: tests/conftest.py; one process more than cores, since some wait for others to start or to end
processes() { "$PYTHON" -c 'import sys; from osdtw_lib.backend.threads import cores; print(cores() + int(sys.argv[1]))' "$1"; }
together=(--dist loadfile --no-loadscope-reorder)
case "${1:-}" in
    "") exec "$PYTHON" -m pytest -n "$(processes 1)" "${together[@]}" ;;
    --fast) shift; exec "$PYTHON" -m pytest -n "$(processes 0)" "${together[@]}" -m "not journey" "$@" ;;
    *) exec "$PYTHON" -m pytest "$@" ;;
esac
