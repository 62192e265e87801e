"""Look at the data of an experiment as the network will see them, on one page, before training.

    retinanet-jax inspect --config=experiments/folder.py:small --config.data.root=FOLDER \\
        --out=look.html --fit_anchors

The page holds images out of the training pipeline with their boxes, counts by class and size,
how well the anchors cover the boxes and the boxes that they miss, what was skipped or changed, and
at its top what to fix. It needs no network: send it to whom you like. --fit_anchors searches size,
scales and ratios of anchors that cover more, and gives them as lines to copy.
"""

import argparse
from pathlib import Path

PASSES_ON = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The page; fields of the config are passed on."""
    add = parser.add_argument
    add("--config", help="experiment file, or with a variant: FILE.py:small; and --config.x=y")
    add("--out", type=Path, default=Path("inspection.html"), help="the page that is written")
    add(
        *("--fit_anchors", "--fit-anchors"),
        action="store_true",
        help="propose anchors that cover more of the boxes",
    )
    add(
        "--max_images",
        type=int,
        default=10_000,
        help="images of each split that are counted; of more, evenly spread ones",
    )


def run(arguments: argparse.Namespace) -> None:
    """Writes the page."""
    from absl import logging

    from retinanet_jax.cli.config_arguments import read_config
    from retinanet_jax.config.settings import ConfigError, from_config_dict
    from retinanet_jax.reports.inspection.inspection_page import inspect_data

    if arguments.max_images < 1:
        raise ConfigError(f"--max_images: {arguments.max_images} is not 1 or more")
    tree = read_config("inspect", arguments)
    logging.set_verbosity(logging.WARNING)  # TFDS tells every file that it has written
    # No network is built: that pretrained weights are not named yet is no error here.
    tree.model.norm, tree.model.frozen_stages = "batch", 0
    config = from_config_dict(tree)
    page = inspect_data(config, fit=arguments.fit_anchors, max_images=arguments.max_images)
    out = arguments.out.expanduser()
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(page, encoding="utf-8")
    print(f"written: {out} ({out.stat().st_size / 1e6:.1f} MB)")
