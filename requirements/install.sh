#!/bin/sh
# Installs the locked CPU set and sdpo itself into the virtual environment that holds the given Python: install.sh PYTHON
# torch comes first and by pip, which alone knows every place of CPU builds it was configured for, and without a resolve of the
# rest: vLLM's wheel asks for packages that break it on the CPU. uv then unpacks and compiles on all cores, which pip does on one.
set -eu
cd "$(dirname "$0")/.."
python=$1
pip() { "$python" -m pip --disable-pip-version-check "$@"; }

# setting NAME VARIABLE: what pip is configured for, as words; nothing where it is not.
setting() {
    printenv "$2" && return
    for section in install global; do
        value=$(printf '%s\n' "$configured" | sed -n "s/^$section\.$1='\(.*\)'\$/\1/p" | sed 's/\\n/ /g')
        [ -z "$value" ] || { printf '%s\n' "$value" && return; }
    done
}

# uv does not read pip's configuration, and takes the first index that has a package where pip takes the best version of all.
with_uv() {
    pip install --quiet --quiet "uv==0.13.9" || return 1
    configured=$(pip config list)
    export UV_INDEX_STRATEGY=unsafe-best-match UV_HTTP_TIMEOUT="${UV_HTTP_TIMEOUT:-180}"
    export UV_DEFAULT_INDEX="${UV_DEFAULT_INDEX:-$(setting index-url PIP_INDEX_URL)}"
    export UV_INDEX="${UV_INDEX:-$(setting extra-index-url PIP_EXTRA_INDEX_URL)}"
    for name in UV_DEFAULT_INDEX UV_INDEX; do [ -n "$(printenv $name)" ] || unset $name; done
    certificates=${SSL_CERT_FILE:-$(setting cert PIP_CERT)}
    [ -z "$certificates" ] || export SSL_CERT_FILE="$certificates"
    set --
    for place in $(setting find-links PIP_FIND_LINKS); do set -- "$@" --find-links "$place"; done
    "$python" -m uv pip install --quiet --python "$python" --no-deps --compile-bytecode "$@" --requirement requirements/cpu.lock
}

echo "installing torch"
pip install --quiet --quiet --no-compile "torch==2.13.0"
echo "installing the locked CPU set (about a minute)"
if ! with_uv; then
    echo "uv could not install it: pip does (about two minutes more)"
    pip install --quiet --quiet --no-deps --requirement requirements/cpu.lock
fi
pip install --quiet --quiet --no-deps --no-build-isolation --editable .
