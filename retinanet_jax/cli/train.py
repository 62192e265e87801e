"""Train a detector, or resume a run.

    retinanet-jax train --config=shapes
    retinanet-jax train --config=folder:small --workdir=runs/mine \\
        --config.data.root=FOLDER --config.train.steps=1000

--config names an experiment, or a file such as experiments/shapes.py. --workdir is runs/NAME of the
experiment by default. The same command resumes a run that was stopped. Any field of the config can
be set: --config.SECTION.FIELD=VALUE; WORKDIR/config.json lists all of them. --helpfull lists
further flags.
"""

import argparse

PASSES_ON = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The main flags; retinanet_jax.main has the others."""
    parser.add_argument("--config", help="experiment: NAME or FILE.py, with :VARIANT")
    parser.add_argument("--workdir", help="folder of the run; default: runs/NAME")


def run(arguments: argparse.Namespace, mode: str = "train") -> None:
    """Passes the flags to retinanet_jax.main."""
    from retinanet_jax import main

    own = {"config": arguments.config, "workdir": arguments.workdir, "mode": mode}
    flags = [f"--{name}={value}" for name, value in own.items() if value is not None]
    main.run([f"retinanet-jax {mode}", *flags, *arguments.passed_on])
