#!/usr/bin/env bash
# The first hour on a GPU: named steps of less than ten minutes each, against bars. No network, nothing is installed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# PYTHON=/path/to/python takes another interpreter; else the project's .venv if there is one, or the active environment
python="${PYTHON:-}"
[[ -n "$python" ]] || for python in .venv/bin/python python python3; do command -v "$python" >/dev/null && break; done
command -v "$python" >/dev/null || { echo "error: no python is found; name one: PYTHON=/path/to/python $0" >&2; exit 2; }
exec env PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" "$python" benchmarks/gpu_acceptance.py "$@"
