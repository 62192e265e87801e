"""Inspect the data of an experiment before training, on one HTML page.

    retinanet-jax inspect --data=FOLDER --out=inspection.html
    retinanet-jax inspect --config=experiments/folder.py:small --config.data.root=FOLDER \\
        --out=inspection.html --fit_anchors

The page is self-contained. It shows problems in the data and how to fix them, images and boxes from
the training pipeline, counts by class and size, how well the anchors cover the boxes, and skipped
entries. --fit_anchors searches for sizes, scales and ratios of anchors that cover more boxes, and
shows them as lines to copy.
"""

import argparse
from pathlib import Path

PASSES_ON = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command. Fields of the config are passed on."""
    add = parser.add_argument
    add("--config", help="experiment file, or with a variant: FILE.py:small; and --config.x=y")
    add("--out", type=Path, default=Path("inspection.html"), help="HTML file to write")
    add(
        *("--fit_anchors", "--fit-anchors"),
        action="store_true",
        help="propose anchors that cover more of the boxes",
    )
    add("--max_images", type=int, default=10_000, help="count at most this many images per split")


def run(arguments: argparse.Namespace) -> None:
    """Inspects the data and writes the page."""
    from absl import logging

    from retinanet_jax.cli.config_arguments import read_config
    from retinanet_jax.cli.report_files import check_page_path, write_files
    from retinanet_jax.config.settings import ConfigError, from_config_dict
    from retinanet_jax.reports.inspection.inspection_page import inspect_data

    if arguments.max_images < 1:
        raise ConfigError(f"--max_images: {arguments.max_images} must be at least 1")
    tree = read_config("inspect", arguments)
    logging.set_verbosity(logging.WARNING)  # TFDS logs every file that it writes
    # No network is built, so pretrained weights may be missing.
    tree.model.norm, tree.model.frozen_stages = "batch", 0
    config = from_config_dict(tree)
    out = arguments.out.expanduser()
    check_page_path(out)
    page = inspect_data(config, fit=arguments.fit_anchors, max_images=arguments.max_images)
    write_files(out, {out: page})
    print(f"written: {out} ({out.stat().st_size / 1e6:.1f} MB)")
