#!/bin/bash
# Any number of machines of eight GPUs under SLURM. Launch: sbatch --nodes 2 recipes/accelerate/slurm.sh RECIPE [key=value ...]
# SLURM sends SIGTERM to every process five minutes before the time is up (--signal below). A run then leaves the step or
# the evaluation it is at, saves a resume point and ends, and the same line with --resume goes on. Each GPU has a task of
# its own: torchrun and accelerate launch would kill their processes 30 seconds after the signal.
# scancel and preemption give less: SLURM kills after its KillWait, 30 seconds on most clusters, or after the partition's
# GraceTime. What is not saved by then is lost back to the last resume point (run.save_every_steps). To end a run early:
# scancel --signal=TERM JOB.
#SBATCH --job-name=finetune
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@300
set -euo pipefail
gpus=${SLURM_GPUS_ON_NODE:-8}
hosts=$(scontrol show hostnames "$SLURM_JOB_NODELIST")
export MASTER_ADDR=${hosts%%$'\n'*}
# Another for every job, since two may share a machine.
export MASTER_PORT=$((20000 + SLURM_JOB_ID % 20000))
export WORLD_SIZE=$((gpus * SLURM_NNODES)) LOCAL_WORLD_SIZE=$gpus
# Every task sees all GPUs of its machine and takes that of its number. Numbers are a task's own, so what asks for them
# is quoted until it runs there. exec: the signal reaches the run itself.
srun --ntasks="$WORLD_SIZE" --ntasks-per-node="$gpus" --cpus-per-task="$((SLURM_CPUS_ON_NODE / gpus))" --gpu-bind=none \
    bash -c 'export RANK=$SLURM_PROCID LOCAL_RANK=$SLURM_LOCALID; exec python finetune/train.py "$@"' bash "$@"
