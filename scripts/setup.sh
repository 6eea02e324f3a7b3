# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# Sourced by scripts/demo and scripts/test: finds a Python, makes .venv, installs the project into it.
# Everything is said on standard error, because standard output belongs to the demo and to the tests.

say() { printf '%s\n' "$*" >&2; }
die() { say "error: $*"; exit 1; }

# Runs a command as root: as we are, or by sudo if that asks for no password. Fails otherwise.
as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi
}

# Installs Debian packages, if this machine and this user can.
apt_install() {
    command -v apt-get >/dev/null 2>&1 || return 1
    say "Installing $* (apt-get) ..."
    as_root env DEBIAN_FRONTEND=noninteractive sh -c '
        apt-get update -qq && apt-get install -y -qq --no-install-recommends "$@"' sh "$@" </dev/null >&2
}

# Prints the first Python that is new enough: the default one, else the newest one with a version in its name.
find_python() {
    for candidate in python3 python3.14 python3.13 python3.12 python3.11; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            [ "$candidate" = python3 ] || say "python3 is older than 3.11; using $candidate."
            command -v "$candidate"
            return 0
        fi
    done
    return 1
}

# make_venv PACKAGE...: .venv with the project (editable, so that it always runs this checkout) and the packages.
# Done once for each setup.py and list of packages.
make_venv() {
    local python stamp
    if [ ! -x .venv/bin/python ]; then
        python=$(find_python) || die "Python 3.11 or newer is needed, and $(python3 --version 2>&1 || echo none) is" \
            "what there is. On Debian or Ubuntu: apt-get install python3.11-venv (or newer)."
        say "Making .venv with $python ..."
        # Debian ships venv without ensurepip, in a package of its own.
        if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
            apt_install "$("$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')" ||
                die "$python cannot make virtual environments. On Debian or Ubuntu: apt-get install python3-venv."
        fi
        "$python" -m venv .venv >&2 || { rm -rf .venv; die "the virtual environment could not be made."; }
    fi
    stamp=".venv/installed-$( { cat setup.py; printf '%s\n' "$PWD" "$@"; } | cksum | tr ' ' '-')"
    if [ ! -e "$stamp" ]; then
        say "Installing the project and what it needs into .venv ..."
        .venv/bin/python -m pip install --quiet --disable-pip-version-check --editable . "$@" </dev/null >&2 ||
            die "pip could not install the project."
        touch "$stamp"
    fi
}
