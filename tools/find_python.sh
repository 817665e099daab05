#!/bin/sh
# Print the Python that the environment is built from: 3.12, else 3.13, else 3.11.
#
#   tools/find_python.sh               the best one on this machine, also one that is not first on the PATH
#   tools/find_python.sh --use WHAT    WHAT is a path, a name on the PATH, or a version such as 3.13
#   tools/find_python.sh --root DIR    look for the usual folders below DIR (tests)
#
# Every candidate is really run: pyenv has shims that exist and fail, and Debian splits venv off its python3.
# POSIX sh and builtins only; one line on standard error and exit code 78 when there is nothing to take.

use='' root=''
while [ $# -gt 0 ]; do
    case $1 in
        --use) use=$2; shift 2 ;;
        --root) root=$2; shift 2 ;;
        *) echo "error: unknown option $1; see the head of tools/find_python.sh" >&2; exit 78 ;;
    esac
done
home=${HOME:-/nonexistent}

fail() { echo "error: $*" >&2; exit 78; }

# Answers "VERSION FLAW EXECUTABLE". The executable is the base one, so that an activated .venv is not its own parent.
probe='
import sys
version = "%d.%d" % sys.version_info[:2]
flaw = "ok"
try:
    import bz2, ctypes, lzma, ssl, venv, zlib
    import ensurepip
    ensurepip.version()
except Exception as error:
    flaw = str(getattr(error, "name", None) or "ensurepip").split(".")[0]
import sysconfig
if sysconfig.get_config_var("Py_GIL_DISABLED"):
    flaw = "free-threaded"
if sys.maxsize < 2**32:
    flaw = "32-bit"
print(version, flaw, getattr(sys, "_base_executable", None) or sys.executable)
'

# Sets version, flaw and found from the candidate $1; fails when it does not run.
ask() {
    [ -x "$1" ] && [ ! -d "$1" ] || return 1
    answer=$("$1" -I -c "$probe" 2>/dev/null </dev/null) || return 1
    version=${answer%% *} answer=${answer#* }
    flaw=${answer%% *} found=${answer#* }
    [ -n "$found" ]
}

# Says why a Python that runs cannot be taken, with the mend.
explain() {
    case $flaw in
        ensurepip | venv) echo "$1 has no working venv; on Debian or Ubuntu: apt install python$version-venv" ;;
        free-threaded) echo "$1 is a free-threaded build, for which JAX has no packages; install the standard build" ;;
        32-bit) echo "$1 is a 32-bit build, for which JAX has no packages; install a 64-bit one" ;;
        *) echo "$1 was built without the module $flaw; install its library's headers and rebuild that Python" ;;
    esac
}

# Where a Python may be: the PATH first, then the usual places off it.
folders() {
    (IFS=:; for folder in $PATH; do echo "$folder"; done)
    for folder in "$home"/.pyenv/versions/*/bin "$home"/.local/share/uv/python/*/bin \
        "$home"/.local/share/mise/installs/python/*/bin "$home"/.asdf/installs/python/*/bin "$home"/.local/bin \
        "$root"/usr/local/bin "$root"/usr/bin "$root"/opt/*/bin "$root"/opt/python/*/bin "$root"/opt/homebrew/bin \
        "$root"/Library/Frameworks/Python.framework/Versions/*/bin \
        "$home"/*conda*/bin "$home"/*conda*/envs/*/bin "$home"/miniforge*/bin "$home"/miniforge*/envs/*/bin \
        "$root"/opt/*conda*/envs/*/bin; do
        [ -d "$folder" ] && echo "$folder"
    done
}

case $use in
    '') wanted='3.12 3.13 3.11' ;;
    3.11 | 3.12 | 3.13) wanted=$use ;;
    python3.11 | python3.12 | python3.13) wanted=${use#python} ;; # its first place on the PATH may be a dead shim
    *)
        chosen=$use
        case $use in */*) ;; *) chosen=$(command -v "$use") || fail "PYTHON=$use is not on the PATH; give its full path" ;; esac
        ask "$chosen" || fail "PYTHON=$use does not run; give the path of a Python 3.11, 3.12 or 3.13"
        case $version in
            3.11 | 3.12 | 3.13) ;;
            *) fail "PYTHON=$use is Python $version; 3.11, 3.12 and 3.13 are supported, so give one of these" ;;
        esac
        [ "$flaw" = ok ] || fail "$(explain "PYTHON=$use")"
        echo "$found"
        exit 0
        ;;
esac

best='' reason='' seen=''
old_ifs=$IFS
IFS='
'
for folder in $(folders); do
    IFS=$old_ifs
    for name in python3.12 python3.13 python3.11 python3 python; do
        candidate=$folder/$name
        ask "$candidate" || continue
        case " $wanted " in
            *" $version "*) ;;
            *) case "$seen " in *" $version "*) ;; *) seen="$seen $version" ;; esac; continue ;;
        esac
        if [ "$flaw" != ok ]; then
            reason=${reason:-$(explain "$candidate")}
            continue
        fi
        case $version in
            "${wanted%% *}") echo "$found"; exit 0 ;; # nothing is better than the first choice
            3.13) best=$found ;;
            *) [ -n "$best" ] || best=$found ;;
        esac
    done
done
IFS=$old_ifs

[ -z "$best" ] || { echo "$best"; exit 0; }
[ -z "$reason" ] || fail "$reason"
[ -z "$use" ] || fail "no Python $wanted found; install it, or give its path: make env PYTHON=/path/to/python$wanted"
fail "no Python 3.11, 3.12 or 3.13 found${seen:+ (only$seen)}; install one, or give its path: make env PYTHON=/path/to/python3.12"
