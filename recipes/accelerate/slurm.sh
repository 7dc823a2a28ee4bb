#!/bin/bash
# Any number of machines of eight GPUs under SLURM. Launch: sbatch --nodes 2 recipes/accelerate/slurm.sh RECIPE [key=value ...]
# SLURM sends SIGTERM to every process five minutes before the time is up (--signal below). The run then leaves its step or
# evaluation, saves a resume point and ends; the same line with --resume continues it. Each GPU has a task of its own,
# because torchrun and accelerate launch would kill their processes 30 seconds after the signal.
# scancel and preemption give less time: SLURM kills after its KillWait, 30 seconds on most clusters, or after the
# partition's GraceTime. A run that has not saved by then falls back to its last resume point (run.save_every_steps). To end
# a run early:
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
# A different port for every job, because two jobs may share a machine.
export MASTER_PORT=$((20000 + SLURM_JOB_ID % 20000))
export WORLD_SIZE=$((gpus * SLURM_NNODES)) LOCAL_WORLD_SIZE=$gpus
# Every task sees all GPUs of its machine and takes the one of its own number. The quotes keep $SLURM_PROCID from being
# read before the task runs. exec: the signal reaches the run itself.
srun --ntasks="$WORLD_SIZE" --ntasks-per-node="$gpus" --cpus-per-task="$((SLURM_CPUS_ON_NODE / gpus))" --gpu-bind=none \
    bash -c 'export RANK=$SLURM_PROCID LOCAL_RANK=$SLURM_LOCALID; exec python finetune/train.py "$@"' bash "$@"
