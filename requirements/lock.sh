#!/bin/sh
# Writes requirements/cpu.lock anew from pyproject.toml: every package of the CPU set, for `pip install --no-deps`.
# torch is left out (the Makefile installs it first) and with it what only a CUDA build of torch would bring.
set -eu
cd "$(dirname "$0")/.."
everywhere="platform_machine == 'x86_64' and platform_python_implementation == 'CPython' and sys_platform == 'linux'"
{
    echo "# Written by requirements/lock.sh; install with --no-deps after torch. Linux, x86-64, CPython 3.11 to 3.13."
    uv pip compile pyproject.toml --extra cpu --extra dev --extra gym --extra wandb --extra mlflow --extra jobs \
        --override requirements/cpu-overrides.txt --universal \
        --no-header --no-annotate --quiet "$@" |
        grep -Ev '^(torch|triton|nvidia-|cuda-)' |
        sed -e "s/ and $everywhere\$//" -e "s/ ; $everywhere\$//" -e "s/ ; implementation_name != 'PyPy'\$//"
} > requirements/cpu.lock.new
mv requirements/cpu.lock.new requirements/cpu.lock
