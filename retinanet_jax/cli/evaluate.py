"""Evaluate the latest checkpoint of a run: average precision, images, detections.json.

    retinanet-jax evaluate --workdir=runs/shapes
    retinanet-jax evaluate --workdir=runs/shapes --config=shapes \\
        --config.data.shapes.num_eval=1000

The network is that of the checkpoint. Data and thresholds are those of the run, or of --config with
any --config.SECTION.FIELD=VALUE. --helpfull lists further flags.
"""

import argparse

from retinanet_jax.cli import train

PASSES_ON = True
add_arguments = train.add_arguments


def run(arguments: argparse.Namespace) -> None:
    """Passes the flags to retinanet_jax.main."""
    train.run(arguments, "evaluate")
