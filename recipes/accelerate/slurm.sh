#!/bin/bash
# Any number of machines of eight GPUs under SLURM. Launch: sbatch --nodes 2 recipes/accelerate/slurm.sh RECIPE [key=value ...]
# SLURM sends SIGTERM to every process five minutes before the time is up: the run finishes its step, saves and ends, and
# the same line with --resume goes on.
#SBATCH --job-name=finetune
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@300
set -euo pipefail
gpus=${SLURM_GPUS_ON_NODE:-8}
hosts=$(scontrol show hostnames "$SLURM_JOB_NODELIST")
first=${hosts%%$'\n'*}
# Each task has its own rank, so what it says is quoted until it runs there. exec: a signal reaches the launcher.
srun bash -c 'exec accelerate launch --config_file recipes/accelerate/two_machines.yaml \
    --num_machines "$SLURM_NNODES" --num_processes "$(("$1" * SLURM_NNODES))" --machine_rank "$SLURM_NODEID" \
    --main_process_ip "$2" finetune/train.py "${@:3}"' bash "$gpus" "$first" "$@"
