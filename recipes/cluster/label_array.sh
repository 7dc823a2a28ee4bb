#!/bin/bash
# Pseudo-labels by a SLURM array, a GPU a task. Launch: sbatch --array=0-7 recipes/cluster/label_array.sh TEACHER PATH... --output DIR
# Every task names the same PATHs and does its part of them. The task that ends last completes DIR; call the same line
# again for what a time limit or a preemption left, with any number of tasks: what is done stays.
#SBATCH --job-name=label
#SBATCH --array=0-7
#SBATCH --gpus=1
#SBATCH --cpus-per-task=8
#SBATCH --time=12:00:00
set -euo pipefail
if ((SLURM_ARRAY_TASK_MIN != 0 || SLURM_ARRAY_TASK_MAX != SLURM_ARRAY_TASK_COUNT - 1)); then
    echo "the array is $SLURM_ARRAY_TASK_MIN to $SLURM_ARRAY_TASK_MAX, of $SLURM_ARRAY_TASK_COUNT: write --array=0-N" >&2
    exit 2
fi
# exec: a signal reaches the call itself.
exec python finetune/label.py "$@" --shard "$SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT"
