# Sourced by run_all.sh and run_tests.sh: sets PYTHON to an interpreter that has the project installed.
# The active environment (conda or other) where it imports osdtw_lib from here; else .venv, made on first use.

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)"  # not through a link: as Python names it

has_project() {  # is osdtw_lib of this folder importable, with what it needs, from anywhere?
    (cd / && "$1" - "$here" <<'PY' >/dev/null 2>&1
import importlib.util as util, pathlib, sys
spec = util.find_spec("osdtw_lib")
needs = ("torch", "torchvision", "timm", "papermill", "nbconvert", "jupyterlab", "plotly", "mlxtend", "latex2mathml")
found = spec and pathlib.Path(spec.origin).resolve().parents[1] == pathlib.Path(sys.argv[1]).resolve() and all(map(util.find_spec, needs))
sys.exit(0 if found else 1)
PY
    )
}

wanted_install() { cat "$here/pyproject.toml" "$here/constraints.txt" | cksum; }

is_set_up() {
    [ -f "$here/.venv/.installed" ] && [ "$(cat "$here/.venv/.installed")" = "$(wanted_install)" ] && has_project "$here/.venv/bin/python"
}

make_environment() {  # one at a time: a second command would take away what the first has begun
    local lock="$here/.venv.lock" said="" status=0
    PYTHON="$here/.venv/bin/python"
    if is_set_up; then return 0; fi
    until mkdir "$lock" 2>/dev/null; do
        if [ ! -d "$lock" ]; then break; fi  # a folder nothing can be made in: pip says so
        if ! kill -0 "$(cat "$lock/pid" 2>/dev/null || echo nobody)" 2>/dev/null && [ -n "$(find "$lock" -prune -mmin +1)" ]; then
            rm -rf "$lock"  # whoever had it was killed
            continue
        fi
        if [ -z "$said" ]; then echo "waits for another command that sets up .venv ..."; said=yes; fi
        sleep 1
    done
    echo $$ > "$lock/pid" 2>/dev/null || true
    trap 'rm -rf "$here/.venv.lock"; exit 130' INT TERM
    set_up_environment || status=$?
    rm -rf "$lock"
    trap - INT TERM
    return $status
}

set_up_environment() {
    local venv="$here/.venv" mark="$here/.venv/.installed" whole=""
    if is_set_up; then return 0; fi  # by the command that was waited for
    python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || {
        echo "error: python3 of version 3.11 or newer is needed, found: $(python3 --version 2>&1)" >&2; return 2; }
    echo "setting up .venv (a few minutes, once) ..."
    if [ -f "$mark" ]; then whole=yes; fi
    rm -f "$mark"
    if [ ! -x "$PYTHON" ] || ! "$PYTHON" -m pip --version >/dev/null 2>&1; then
        rm -rf "$venv"
        whole=""
        python3 -m venv "$venv" || { rm -rf "$venv"; echo "error: python3 -m venv failed (Debian: install python3-venv)" >&2; return 2; }
    fi
    if ! (cd "$here" && "$PYTHON" -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test]' 2>"$venv/install.log"); then
        grep -E '^ *ERROR' "$venv/install.log" >&2 || tail -n 5 "$venv/install.log" >&2
        local left="nothing is kept of it"
        if [ "$whole" ]; then echo stale > "$mark"; left="the environment that was there stays"; else rm -rf "$venv"; fi
        echo "error: the installation failed (above); $left, run the command again when it is mended" >&2
        return 2
    fi
    wanted_install > "$mark"
}

active="$(command -v python || command -v python3 || true)"
if [ -n "$active" ] && has_project "$active"; then
    PYTHON="$active"
else
    make_environment || exit $?
fi
