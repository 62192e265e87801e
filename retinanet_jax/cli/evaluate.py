"""Score the latest checkpoint of a run: average precision, pictures, detections.json.

    retinanet-jax evaluate --config=experiments/shapes.py --workdir=runs/shapes

The network is that of the checkpoint, the data that of the config, in which any field can be set:
--config.data.eval_split=test. --helpfull lists further flags.
"""

import argparse

from retinanet_jax.cli import train

PASSES_ON = True
add_arguments = train.add_arguments


def run(arguments: argparse.Namespace) -> None:
    """Hands the flags on to retinanet_jax.main."""
    train.run(arguments, "evaluate")
