#!/bin/bash
# One run as a Ray job: RAY_ADDRESS=http://HEAD:8265 RUNS_DIR=/shared/runs launch/ray/submit.sh algorithm=grpo name=first-try
#
# What is sent along is this checkout's package and nothing else: no runs, no caches, no .venv. The cluster's Python has sdpo with all
# it needs installed (docs/cluster.md); its code is then this one. INCLUDE="my_env.py tasks.jsonl" sends more files, OPTIONS="--no-wait"
# gives `ray job submit` more options.
set -euo pipefail
: "${RAY_ADDRESS:?must be the address of the cluster dashboard, such as http://HEAD:8265}"
: "${RUNS_DIR:?must be a folder that all nodes of the cluster share}"
checkout=$(cd "$(dirname "$0")/../.." && pwd)
package=$(mktemp -d)
trap 'rm -rf "$package"' EXIT
cp -r "$checkout/sdpo" "$package/sdpo"
cp -r "$checkout/envs" "$checkout/conf" "$package/sdpo/"
for file in ${INCLUDE:-}; do cp -r "$file" "$package/"; done
find "$package" -name __pycache__ -prune -exec rm -rf {} +
# shellcheck disable=SC2086
python -m ray.scripts.scripts job submit --address "$RAY_ADDRESS" --working-dir "$package" ${OPTIONS:-} -- \
  python -m sdpo.cli train cluster=ray "runs_dir=$RUNS_DIR" tracking.quiet=true "$@"
