#!/bin/sh
# Writes requirements/cpu.lock anew from pyproject.toml: every package of the CPU set, for `pip install --no-deps`.
# torch is left out (the Makefile installs it first) and with it what only a CUDA build of torch would bring.
set -eu
cd "$(dirname "$0")/.."
everywhere="platform_machine == 'x86_64' and platform_python_implementation == 'CPython' and sys_platform == 'linux'"
# Not the head of a pipe, whose failure a shell does not see: the lock stays as it is where nothing fits together.
resolved=$(
    uv pip compile pyproject.toml --extra cpu --extra dev --extra gym --extra math --extra wandb --extra mlflow --extra jobs \
        --override requirements/cpu-overrides.txt --universal \
        --no-header --no-annotate --quiet "$@"
)
{
    echo "# Written by requirements/lock.sh; install with --no-deps after torch. Linux, x86-64, CPython 3.11 to 3.13."
    printf '%s\n' "$resolved" |
        grep -Ev '^(torch|triton|nvidia-|cuda-)' |
        sed -e "s/ and $everywhere\$//" -e "s/ ; $everywhere\$//" -e "s/ ; implementation_name != 'PyPy'\$//"
} > requirements/cpu.lock.new
mv requirements/cpu.lock.new requirements/cpu.lock
