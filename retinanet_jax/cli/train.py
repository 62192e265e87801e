"""Train a detector as a config file says, or go on with a run.

    retinanet-jax train --config=experiments/shapes.py --workdir=runs/shapes
    retinanet-jax train --config=experiments/folder.py:small --workdir=runs/mine \\
        --config.data.root=FOLDER --config.train.steps=1000

The same command goes on where a run was stopped. Any field of the config can be set by
--config.SECTION.FIELD=VALUE; runs/mine/config.json then lists all. --helpfull lists further flags.
"""

import argparse

PASSES_ON = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Those of every run; all others are the flags of retinanet_jax.main."""
    parser.add_argument("--config", help="experiment file, or with a variant: FILE.py:small")
    parser.add_argument("--workdir", help="where checkpoints, logs and images are kept")


def run(arguments: argparse.Namespace, mode: str = "train") -> None:
    """Hands the flags on to retinanet_jax.main."""
    from retinanet_jax import main

    own = {"config": arguments.config, "workdir": arguments.workdir, "mode": mode}
    flags = [f"--{name}={value}" for name, value in own.items() if value is not None]
    main.run([f"retinanet-jax {mode}", *flags, *arguments.passed_on])
