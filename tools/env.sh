#!/bin/sh
# The environment of `make env` in $VENV, with the packages of requirements.txt: installed by uv, by pip where uv fails.
#
#   VENV=.venv PYTHON= EXTRA= sh tools/env.sh
#
# PYTHON is a path, a name on the PATH or a version; empty takes the first Python 3.12, 3.13 or 3.11 that runs. EXTRA is
# an extra of pyproject.toml, kept in $VENV/extras for the next time. A folder that this did not make is left alone.
set -eu
cd "$(dirname "$0")/.."
VENV=${VENV:-.venv} PYTHON=${PYTHON:-} EXTRA=${EXTRA:-} BIN=$VENV/bin/python

say() { echo "environment: $*"; }
fail() { echo "error: $*" >&2; exit 78; }

# Prints the Python behind $1 if an environment can be made of it; pyenv has shims that fail, Debian a Python without
# venv, and an activated environment is not its own parent.
working() {
    "$1" -I -c 'import sys, sysconfig, ssl, lzma, venv, ensurepip
assert (3, 11) <= sys.version_info[:2] <= (3, 13) and not sysconfig.get_config_var("Py_GIL_DISABLED")
print(getattr(sys, "_base_executable", None) or sys.executable)' 2>/dev/null </dev/null
}

# The first Python that works among the names $*, on the PATH or where managers of Pythons put them.
find_python() {
    for name in "$@"; do
        for candidate in "$(command -v "$name")" "${HOME:-}"/.pyenv/versions/"${name#python}"*/bin/python \
            "${HOME:-}"/.local/share/uv/python/cpython-"${name#python}"*/bin/python3 "${HOME:-}"/.local/bin/"$name" \
            /usr/local/bin/"$name" /usr/bin/"$name" /opt/homebrew/bin/"$name" "${HOME:-}"/*conda*/bin/"$name"; do
            [ -n "$candidate" ] && working "$candidate" && return
        done
    done
    return 1
}

choose() {
    case $PYTHON in
        '') find_python python3.12 python3.13 python3.11 python3 python || fail \
            "no Python 3.11, 3.12 or 3.13 with venv found; install one (Debian: python3.12-venv), or: make env PYTHON=PATH" ;;
        3.*) find_python "python$PYTHON" || fail "no Python $PYTHON with venv found (3.11 to 3.13 work); give its path" ;;
        *) working "$(command -v "$PYTHON")" || fail "PYTHON=$PYTHON is no Python 3.11, 3.12 or 3.13 that has venv" ;;
    esac
}

# Whether $VENV was made here: this is written before anything else is.
ours() { grep -qs "^prompt = .*chinchilla_jax" "$VENV/pyvenv.cfg" || [ -f "$VENV/installed" ]; }

# What pip is configured with; uv reads neither pip's files nor its variables.
configured() {
    "$BIN" -m pip config list 2>/dev/null | sort -r | sed -n "s/^[^=]*[.]$1='\(.*\)'\$/\1/p" | head -1
}

# Install with uv, which wants its settings by variables, or else with pip; both compare the hashes.
install() {
    "$VENV/bin/uv" pip install -q --python "$BIN" "$@" 2>"$VENV/uv.log" || {
        say "uv did not succeed ($(tail -1 "$VENV/uv.log" | cut -c1-100)); pip installs the same"
        "$BIN" -m pip install -q --disable-pip-version-check --no-input "$@"
    }
}

# The folder that $VENV is or links to, which need not exist.
real() {
    if [ -L "$VENV" ] && [ ! -e "$VENV" ]; then
        link=$(readlink "$VENV")
        case $link in /*) echo "$link" ;; *) echo "$(dirname "$VENV")/$link" ;; esac
    else
        readlink -f "$VENV" || echo "$VENV"
    fi
}

python='' began=$(date +%s)
if [ -e "$VENV" ] && [ -n "$(ls -A "$VENV")" ]; then
    ours || fail "$VENV is there and make env did not make it; move it away, or choose another: make env VENV=.venv-2"
    "$BIN" -c '' 2>/dev/null || python=$(choose)
    if [ -n "$PYTHON" ] && [ -z "$python" ]; then
        python=$(choose)
        version='import sys; print(sys.version_info[:2], getattr(sys, "_base_executable", sys.executable))'
        [ "$("$BIN" -c "$version" | cut -d')' -f1)" != "$("$python" -c "$version" | cut -d')' -f1)" ] || python=''
    fi
else
    python=$(choose)
fi
mkdir -p "$(real)"
rm -f "$VENV/installed"
if [ -n "$python" ]; then
    say "$("$python" --version) at $python -> $VENV"
    extras=$(cat "$VENV/extras" 2>/dev/null || true)
    "$python" -m venv --clear --prompt chinchilla_jax "$(real)" || fail "venv failed (see above); free some disk space, or choose another PYTHON"
    [ -z "$extras" ] || echo "$extras" >"$VENV/extras"
fi
touch "$VENV/extras"
[ -z "$EXTRA" ] || grep -qx "$EXTRA" "$VENV/extras" || echo "$EXTRA" >>"$VENV/extras"

index=$(configured index-url) more=$(configured extra-index-url) links=$(configured find-links) cert=$(configured cert)
export UV_DEFAULT_INDEX="${UV_DEFAULT_INDEX:-${index:-https://pypi.org/simple}}" UV_INDEX="${UV_INDEX:-$more}"
export UV_FIND_LINKS="${UV_FIND_LINKS:-$links}" UV_INDEX_STRATEGY=unsafe-best-match UV_LINK_MODE=copy
[ -z "$cert" ] || export SSL_CERT_FILE="${SSL_CERT_FILE:-$cert}"

say "installing $(grep -c == requirements.txt) pinned packages"
sed -n '/^uv==/,/[^\\]$/p' requirements.txt >"$VENV/uv.txt"
"$BIN" -m pip install -q --disable-pip-version-check --no-input --require-hashes -r "$VENV/uv.txt" >"$VENV/uv.log" 2>&1 || true
install --require-hashes -r requirements.txt || fail "the packages could not be installed (see above); make env goes on"
for extra in $(cat "$VENV/extras"); do
    "$BIN" -c 'import re, sys, tomllib
extras = tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]
sys.exit(f"error: no extra {sys.argv[1]!r}; there are {sorted(extras)}") if sys.argv[1] not in extras else None
print(*[r for r in extras[sys.argv[1]] if not r.startswith("chinchilla_jax")], sep="\n")' "$extra" >"$VENV/extra.txt" || {
        grep -vx "$extra" "$VENV/extras" >"$VENV/extras.new" || true
        mv "$VENV/extras.new" "$VENV/extras"
        exit 78
    }
    sed -n 's/ *\\$//; /==/p' requirements.txt >"$VENV/pins.txt"
    install -c "$VENV/pins.txt" -r "$VENV/extra.txt" || fail "extra $extra could not be installed (see above)"
    say "with the extra $extra"
done
seen=$("$BIN" -c 'import jax, sys; print("Python", sys.version.split()[0] + ", jax", jax.__version__)') ||
    fail "the installed jax does not import (see above); is this processor or system too old for it?"
touch "$VENV/installed"
say "ready in $(($(date +%s) - began)) s: $seen"
