#!/usr/bin/env bash
# Fetches MicroPython's source as Debian packages it (6 MB, from the suite that has 1.25) and unpacks it to .venv/micropython.
# Nothing of it is installed; the machine's own package lists stay as they are. Needs apt-get and nothing else of Debian's.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

SUITE=trixie
TREE=.venv/micropython

fail() { printf 'error: %s\n' "$*" >&2; exit 1; }

[ ! -f $TREE/py/dynruntime.h ] || exit 0
command -v apt-get >/dev/null ||
    fail "no apt-get here: set MICROPYTHON to a checkout of MicroPython 1.23 to 1.27, with its submodules"

# The machine's own mirror, or Debian's.
mirror=$(cat /etc/apt/sources.list.d/debian.sources /etc/apt/sources.list 2>/dev/null |
    awk '/^URIs:/ { print $2; exit } /^deb / { for (i = 2; i <= NF; i++) if ($i ~ /^[a-z]+:\/\//) { print $i; exit } }' || true)
[ -n "$mirror" ] || fail "apt has no mirror of Debian: set MICROPYTHON to a checkout of MicroPython 1.23 to 1.27"

mkdir -p .venv
work=$(mktemp -d .venv/micropython.XXXXXX)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/lists/partial" "$work/cache/archives/partial"
echo "deb-src $mirror $SUITE main" >"$work/sources.list"
here=$PWD/$work
apt() {
    apt-get -qq -o Dir::Etc::sourcelist="$here/sources.list" -o Dir::Etc::sourceparts=/dev/null \
        -o Dir::State::lists="$here/lists" -o Dir::Cache="$here/cache" -o APT::Sandbox::User="$(id -un)" "$@"
}
apt update
(cd "$work" && apt source --download-only micropython >/dev/null)
mkdir "$work/tree"
tar -xf "$work"/micropython_*.orig.tar.xz -C "$work/tree" --strip-components=1
touch "$work/tree/lib/micropython-lib/README.md" 2>/dev/null ||
    { mkdir -p "$work/tree/lib/micropython-lib" && touch "$work/tree/lib/micropython-lib/README.md"; }
rm -rf $TREE
mv "$work/tree" $TREE
