#!/usr/bin/env bash
# Trains on several nodes under Slurm, one process per GPU. From the repository, with the
# environment active:
#
#   sbatch scripts/launch/slurm.sh --config=experiments/coco.py --workdir=/shared/runs/coco ...
#
# All nodes must see --workdir and the data at the same paths. Options of sbatch before the name of
# the script override those below. One process needs only a share of the node's cores.
#SBATCH --job-name=retinanet
#SBATCH --output=%x-%j.txt
#SBATCH --open-mode=append
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
# Per node, not per task: every process sees all GPUs and uses the one with its number.
#SBATCH --gpus-per-node=8
# 120 seconds before the time limit each process gets SIGTERM, saves and exits with 75.
#SBATCH --signal=TERM@120
#SBATCH --requeue
set -u

# If one process fails, the others end by themselves with a message; srun need not kill them.
code=0
srun --kill-on-bad-exit=0 --cpus-per-task="${SLURM_CPUS_PER_TASK:-1}" \
    python -m retinanet_jax.main "$@" || code=$?

# Stopped, not finished: queue the same job again, which resumes.
if [ "$code" -eq 75 ]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
