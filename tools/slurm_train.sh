#!/usr/bin/env bash
# Train one config through Slurm:
#   GPUS=32 GPUS_PER_NODE=8 tools/slurm_train.sh PARTITION JOB_NAME CONFIG WORK_DIR [options of tools/train.py]
# CPUS_PER_TASK and SRUN_ARGS are passed on to srun. Without GPUs: GRES= (empty) GPUS=<processes>.
set -euo pipefail

if [ "$#" -lt 4 ]; then
    echo "usage: $0 PARTITION JOB_NAME CONFIG WORK_DIR [options]" >&2
    exit 2
fi
partition=$1
job_name=$2
config=$3
work_dir=$4
shift 4

gpus=${GPUS:-8}
gpus_per_node=${GPUS_PER_NODE:-8}
# shellcheck disable=SC2206  # several words on purpose
srun_args=(${SRUN_ARGS:-})
gres=${GRES-gpu:$gpus_per_node}
if [ -n "$gres" ]; then
    srun_args+=("--gres=$gres")
fi

exec srun --partition="$partition" \
    --job-name="$job_name" \
    --ntasks="$gpus" \
    --ntasks-per-node="$gpus_per_node" \
    --cpus-per-task="${CPUS_PER_TASK:-8}" \
    --kill-on-bad-exit=1 \
    "${srun_args[@]}" \
    python -u "$(dirname "$0")/train.py" "$config" --work-dir "$work_dir" --launcher slurm "$@"
