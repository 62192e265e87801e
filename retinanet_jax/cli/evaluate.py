"""Evaluate a run: average precision, images, detections.json.

    retinanet-jax evaluate --model=runs/shapes
    retinanet-jax evaluate --model=runs/shapes --step=400 --config.data.shapes.num_eval=1000
    retinanet-jax evaluate --model=runs/cells --data=FOLDER
    retinanet-jax evaluate --model=runs/shapes --flip --scales=1,1.5 --merge=weighted
    retinanet-jax evaluate --model=runs/shapes --tile=640

The network comes from the checkpoint. Data, image size and thresholds are those of the run;
--data=FOLDER and --config.SECTION.FIELD=VALUE change them, and --config=EXPERIMENT replaces them
by those of an experiment. --flip, --scales, --tile, --overlap
and --merge work as in detect; a run that trained on tiles is evaluated in tiles, unless you pass
--tile=none. The results are written to the workdir. --helpfull lists further flags.
"""

import argparse

from retinanet_jax.cli.model_arguments import add_workdir_arguments

PASSES_ON = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The main flags; retinanet_jax.main has more."""
    add_workdir_arguments(parser)
    parser.add_argument("--config", help="experiment to use instead of the run's settings")


def run(arguments: argparse.Namespace) -> None:
    """Passes the flags to retinanet_jax.main."""
    from retinanet_jax import main

    given = {"config": arguments.config, "workdir": arguments.model, "step": arguments.step}
    flags = [f"--{name}={value}" for name, value in given.items() if value is not None]
    main.run(["retinanet-jax evaluate", *flags, "--mode=evaluate", *arguments.passed_on])
