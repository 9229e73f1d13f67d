#!/usr/bin/env bash
# Train one config on several processes of this machine (or of each of several machines):
#   tools/dist_train.sh CONFIG NUM_PROCESSES [options of tools/train.py]
# One process a GPU (NCCL); without a GPU the same command uses CPU processes (gloo).
# SCRIPT is the script it starts, beside this one (default: train.py).
# Several machines: set NNODES, NODE_RANK, MASTER_ADDR (and PORT) on each.
set -euo pipefail

if [ "$#" -lt 2 ]; then
    echo "usage: $0 CONFIG NUM_PROCESSES [options]" >&2
    exit 2
fi
config=$1
processes=$2
shift 2

exec python -m emae_mm.engine.torchrun \
    --nnodes="${NNODES:-1}" \
    --node_rank="${NODE_RANK:-0}" \
    --master_addr="${MASTER_ADDR:-127.0.0.1}" \
    --master_port="${PORT:-29500}" \
    --nproc_per_node="$processes" \
    "$(dirname "$0")/${SCRIPT:-train.py}" "$config" --launcher pytorch "$@"
