#!/usr/bin/env bash
# Trains on all hosts of a Cloud TPU VM, the same command on each. From anywhere with gcloud:
#
#   scripts/launch/tpu.sh NAME ZONE --config=experiments/coco.py --workdir=/mnt/shared/runs/coco ...
#
# Each host has this repository in ~/retinanet_jax, installed with '.[tpu]' in its .venv, and
# --workdir is gs://BUCKET/RUN (pip install gcsfs), or on a file system that all hosts have mounted
# (Filestore). The run continues if the connection breaks. Its output is in ~/retinanet.log of each host; that of the first is shown.
# After a preemption, create the TPU and start this again: it resumes from the last checkpoint.
# To save and stop it:
#
#   gcloud compute tpus tpu-vm ssh NAME --zone=ZONE --worker=all --command='kill $(cat retinanet.pid)'
set -euo pipefail

if [ $# -lt 3 ]; then
    sed -n '2,/^set /s/^# \{0,1\}//p' "$0" >&2
    exit 2
fi
name=$1 zone=$2
shift 2

on() {
    gcloud compute tpus tpu-vm ssh "$name" --zone="$zone" --worker="$1" --command="$2"
}

# The hosts find each other by the metadata of the TPU VM.
run="python -m retinanet_jax.main$(printf ' %q' "$@")"
on all "cd retinanet_jax && . .venv/bin/activate &&
    { nohup $run >~/retinanet.log 2>&1 </dev/null & echo \$! >~/retinanet.pid; }"
on 0 "tail --pid=\$(cat retinanet.pid) -n +1 -F retinanet.log"
