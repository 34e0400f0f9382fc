#!/usr/bin/env bash
# Makes .venv with the packages of pyproject.toml at the versions of constraints.txt, and, on Debian-like systems, the
# cross-compiler and the emulator; with the extra "dev" also what `make fuzz` and `make lint` take for C. `make setup` calls it;
# it is quick when nothing is missing. From the environment:
#   PYTHON            the interpreter to build .venv with (default: python3, else the first of python3.11-3.14)
#   EXTRAS            extras of pyproject.toml (default: "train export dev"; "tf" adds TensorFlow's cross-check)
#   TORCH_INDEX_URL   a further package index, for example PyTorch's own for CPU-only wheels (200 MB instead of 3 GB)
#   SYSTEM_PACKAGES   0: never call apt-get
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

EXTRAS=${EXTRAS:-train export dev}
EXTRAS=${EXTRAS//,/ }
VENV=.venv
STAMP=$VENV/.setup-complete

say() { printf 'setup: %s\n' "$*"; }
fail() { printf 'error: %s\n' "$*" >&2; exit 1; }
has() { command -v "$1" >/dev/null 2>&1; }

# ---- Debian packages: the cross-compiler, the emulator and a host compiler; fuzzing and lint for C ----

has_newlib() { [ "$(arm-none-eabi-gcc -print-file-name=nano.specs)" != nano.specs ]; }

missing_packages() {
    has gcc || has cc || has clang || printf 'gcc libc6-dev '
    if ! has arm-none-eabi-gcc; then printf 'gcc-arm-none-eabi libnewlib-arm-none-eabi '
    elif ! has_newlib; then printf 'libnewlib-arm-none-eabi '; fi
    has qemu-system-arm || printf 'qemu-system-arm '
}

missing_dev_packages() {
    has clang || printf 'clang libclang-rt-dev '
    has clang-tidy || printf 'clang-tidy '
    has cppcheck || printf 'cppcheck '
}

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi
}

# Installs the packages $1 and never fails: without them there is no $2, and `make doctor` says what is missing.
install_system_packages() {
    local missing=${1% }
    [ -n "$missing" ] || return 0
    if [ "${SYSTEM_PACKAGES:-1}" != 0 ] && has apt-get && as_root true 2>/dev/null; then
        say "apt-get install $missing"
        export DEBIAN_FRONTEND=noninteractive
        # shellcheck disable=SC2086  # a list of package names
        if as_root apt-get update -qq && as_root apt-get install -y -qq --no-install-recommends $missing >/dev/null; then
            return 0
        fi
        say "apt-get failed; going on without: $missing"
    elif has apt-get; then
        say "not installed (needs root): sudo apt-get install --no-install-recommends $missing"
    else
        say "not found: what Debian calls $missing; without them there is no $2"
    fi
}

# ---- Python ----

find_python() {
    local candidate
    for candidate in ${PYTHON:-python3 python3.11 python3.12 python3.13 python3.14}; do
        if has "$candidate" && "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            printf '%s' "$candidate"
            return 0
        fi
    done
    fail "Tessera needs Python 3.11 or newer, ${PYTHON:-python3} is $("${PYTHON:-python3}" --version 2>&1 || true);" \
        "install one and name it: PYTHON=python3.12 make setup"
}

fingerprint() {
    # The extras belong to it: asking for more of them must not be answered by an old stamp.
    { printf '%s\n' "$EXTRAS"; cat pyproject.toml constraints.txt; } | cksum
}

make_venv() {
    local python
    # A folder left behind by an interrupted or failed run has no working pip: it is made anew.
    if [ -x $VENV/bin/python ] && $VENV/bin/python -m pip --version >/dev/null 2>&1; then
        $VENV/bin/python -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
            fail "$VENV was made by a Python older than 3.11; remove it (rm -r $VENV) and run make setup again"
        return 0
    fi
    python=$(find_python)
    if ! "$python" -c 'import venv, ensurepip' 2>/dev/null; then
        fail "$python has no venv module; on Debian: sudo apt-get install python3-venv"
    fi
    say "making $VENV with $("$python" --version)"
    "$python" -m venv --clear $VENV || fail "$python -m venv $VENV failed (see above)"
}

install_packages() {
    local requirements quiet=--quiet
    [ -t 1 ] && quiet=  # progress bars for people, silence for logs
    # shellcheck disable=SC2086  # $EXTRAS and $quiet are lists of words
    requirements=$($VENV/bin/python -m detection.requirements core $EXTRAS) || exit 1
    say "installing core $EXTRAS at the versions of constraints.txt (the first time a few minutes)"
    $VENV/bin/python -m pip install $quiet --disable-pip-version-check --constraint constraints.txt \
        --requirement <(printf '%s\n' "$requirements") \
        ${TORCH_INDEX_URL:+--extra-index-url "$TORCH_INDEX_URL"} ||
        fail "pip could not install the packages (see above); $VENV is incomplete: run make setup again"
}

install_system_packages "$(missing_packages)" "emulator (and no host library without gcc)"
case " $EXTRAS " in *" dev "*) install_system_packages "$(missing_dev_packages)" "fuzzing and no lint of the C files" ;; esac
if [ -f $STAMP ] && [ "$(<$STAMP)" = "$(fingerprint)" ]; then
    exit 0
fi
rm -f $STAMP
make_venv
install_packages
# Never fails either: without it everything but packages for OpenMV cameras works.
[ "${SYSTEM_PACKAGES:-1}" = 0 ] || firmware/openmv/get_micropython.sh ||
    say "going on without MicroPython's source (export.py --target openmv-h7 needs it)"
fingerprint >$STAMP.tmp
mv $STAMP.tmp $STAMP
say "done; make doctor shows what is there"
