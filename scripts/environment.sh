# The environment that the scripts share: `.venv` in this project's folder. Sourced, not run.
#
#   need WHAT...    install the project with these extras (redis, all, ...) and dependency groups (test, lint, ...)
#
# With uv where it is present, else with Python's own venv and pip. What is there already is not installed again, as
# long as pyproject.toml and the Python stay the same. Run from the project's folder.

python=.venv/bin/python
installed=.venv/eventkit-installed # a line for each extra or group that is installed, with what it was made from

say() {
    printf '%s\n' "$*" >&2
}

stop() {
    say "$@"
    exit 1
}

need() {
    made_from=
    [ -x $python ] && made_from=$(fingerprint)
    missing=
    for what in "$@"; do
        has "$what" || missing="$missing $what"
    done
    [ -n "$missing" ] || return 0

    if ! usable; then
        make_environment
    fi
    made_from=$(fingerprint)
    say "Installing eventkit and what it needs for:$missing ..."
    # The groups are read here, since pip understands --group only from 25.1 on.
    # shellcheck disable=SC2086  # one word an extra or group
    wanted=$($python scripts/requirements.py $missing) || exit 1
    # shellcheck disable=SC2086  # one word an option
    printf '%s\n' "$wanted" >.venv/requirements.txt &&
        install_with_uv_or_pip -r .venv/requirements.txt </dev/null ||
        stop "That did not work: see above. Is there a network, or a package index that this machine may use?"
    for what in $missing; do
        printf '%s %s\n' "$what" "$made_from" >>$installed
    done
}

has() {
    [ -n "$made_from" ] && [ -f $installed ] &&
        { grep -qxF "$1 $made_from" $installed || { is_extra "$1" && grep -qxF "all $made_from" $installed; }; }
}

is_extra() {
    case $1 in redis | nats | rabbit | kafka) ;; *) return 1 ;; esac
}

# What the environment depends on: the declarations, the Python, and the folder it was made in.
fingerprint() {
    {
        cat pyproject.toml scripts/requirements.py
        pwd
        $python -V
    } 2>/dev/null | cksum | tr ' ' -
}

usable() {
    [ -x $python ] && $python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null &&
        { command -v uv >/dev/null || $python -m pip --version >/dev/null 2>&1; }
}

make_environment() {
    if [ -e .venv ]; then
        [ -w .venv ] || stop ".venv cannot be written by $(id -un): remove it, or run this as who made it."
        say "Making .venv again: the one that is there cannot be used."
        rm -rf .venv
    fi
    [ -w . ] || stop "$(pwd) cannot be written by $(id -un), and .venv is made there: use a copy of your own."
    if command -v uv >/dev/null; then
        say "Making .venv with uv ..."
        uv venv --quiet --python '>=3.11' .venv </dev/null || stop "uv could not make .venv: see above."
        return
    fi
    found=$(find_python) || stop "Python 3.11 or newer is needed, and this machine's is older or missing.
  Debian, Ubuntu:  sudo apt-get install python3 python3-venv   (Debian 12, Ubuntu 24.04 or newer)
  macOS:           brew install python
  anywhere:        install uv (https://docs.astral.sh/uv/), which brings a Python of its own, and run this again"
    say "Making .venv with $($found -V) ..."
    "$found" -c 'import ensurepip, venv' 2>/dev/null || get_venv_module "$found"
    "$found" -m venv .venv </dev/null || stop "$found could not make .venv: see above."
}

# The first that runs: a name on the PATH may belong to a version manager that has no such version.
find_python() {
    for name in ${PYTHON:+"$PYTHON"} python3 python3.13 python3.12 python3.11 python; do
        if command -v "$name" >/dev/null && "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
        then
            command -v "$name"
            return
        fi
    done
    return 1
}

# Debian and Ubuntu keep the module in a package of its own.
get_venv_module() {
    package=$("$1" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')
    if command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
        say "Installing $package, which $1 needs to make .venv ..."
        {
            apt_get install "$package" || { apt_get update && apt_get install "$package"; }
        } >&2 && return
    fi
    stop "$1 lacks its venv module, and .venv cannot be made without it.
  Debian, Ubuntu:  sudo apt-get install $package"
}

apt_get() {
    DEBIAN_FRONTEND=noninteractive apt-get -qq -y -o DPkg::Lock::Timeout=300 "$@" </dev/null
}

install_with_uv_or_pip() {
    if command -v uv >/dev/null; then
        uv pip install --quiet --python $python "$@"
    else
        $python -m pip install --quiet --disable-pip-version-check --no-input "$@"
    fi
}
