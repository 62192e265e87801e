"""Score the latest checkpoint of a run: average precision, images, detections.json.

    retinanet-jax evaluate --workdir=runs/shapes
    retinanet-jax evaluate --workdir=runs/shapes --config=experiments/shapes.py \\
        --config.data.shapes.num_eval=1000

The network is that of the checkpoint; data and thresholds are those of the run, or of --config, in
which any field can be set. --helpfull lists further flags.
"""

import argparse

from retinanet_jax.cli import train

PASSES_ON = True
add_arguments = train.add_arguments


def run(arguments: argparse.Namespace) -> None:
    """Hands the flags on to retinanet_jax.main."""
    train.run(arguments, "evaluate")
