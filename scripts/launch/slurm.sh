#!/usr/bin/env bash
# Trains on several nodes under Slurm, a process for each GPU. From the repository, with the
# environment active:
#
#   sbatch scripts/launch/slurm.sh --config=experiments/coco.py --workdir=/shared/runs/coco ...
#
# All nodes have to see --workdir and the data at the same paths. Options of sbatch before the
# script's name take the place of these; one process needs no more than a share of the node's cores.
#SBATCH --job-name=retinanet
#SBATCH --output=%x-%j.txt
#SBATCH --open-mode=append
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
# For the node, not for each task: every process sees all GPUs and takes that of its number.
#SBATCH --gpus-per-node=8
# 120 seconds before the end each process is asked to stop, saves and exits with 75.
#SBATCH --signal=TERM@120
#SBATCH --requeue
set -u

# Where one process fails, the others end by themselves, and say why: srun need not end them.
code=0
srun --kill-on-bad-exit=0 --cpus-per-task="${SLURM_CPUS_PER_TASK:-1}" \
    python -m retinanet_jax.main "$@" || code=$?

# Stopped, not done: the same job again, which goes on from what was saved.
if [ "$code" -eq 75 ]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
