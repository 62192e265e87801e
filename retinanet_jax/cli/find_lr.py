"""Find a learning rate: train while it rises, and plot the loss.

    retinanet-jax find_lr --data=FOLDER
    retinanet-jax find_lr --config=folder:small --data=FOLDER --weights=none --out=rates.svg

The command takes the flags of `train`. It trains for 100 updates (--tries), or fewer if the loss
diverges, while the learning rate rises from --lowest to --highest. It suggests a tenth of the rate
with the lowest loss, as a starting point. It writes only the plot. `train --lr=auto` runs this test
before its first step, and trains with the suggested rate.
"""

import argparse
from pathlib import Path

PASSES_ON = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The range. The flags of `train` are passed on."""
    add = parser.add_argument
    add("--config", help="experiment: NAME or FILE.py, with :VARIANT; default: folder")
    add("--tries", type=int, default=100, help="number of updates; default 100")
    add("--lowest", type=float, default=1e-6, help="first learning rate; default 1e-6")
    add("--highest", type=float, default=1.0, help="last learning rate; default 1")
    add("--out", type=Path, default=Path("find_lr.svg"), help="plot to write; default find_lr.svg")


def run(arguments: argparse.Namespace) -> None:
    """Runs the test, writes the plot and prints the suggestion."""
    from absl import logging

    from retinanet_jax.cli.config_arguments import read_config
    from retinanet_jax.cli.outputs import check_writable, writing_to
    from retinanet_jax.config.settings import from_config_dict
    from retinanet_jax.reports.learning_rate_plot import draw_range_test
    from retinanet_jax.reports.plot_style import svg_file
    from retinanet_jax.runtime.compilation_cache import keep_compilations
    from retinanet_jax.runtime.workdir import write_whole
    from retinanet_jax.training.learning_rate_test import learning_rate_test

    logging.set_verbosity(logging.WARNING)
    config = from_config_dict(read_config("find_lr", arguments))
    out = arguments.out.expanduser()
    check_writable(out.parent)
    keep_compilations(config.data.cache_dir)
    limits = {"lowest": arguments.lowest, "highest": arguments.highest}
    found = learning_rate_test(config, steps=arguments.tries, **limits)
    with writing_to(out):
        write_whole(out, svg_file(draw_range_test(found), "learning rate"))
    print(f"written: {out}")
    if found.suggestion is None:
        print("the loss did not fall; try more --tries, or a higher --highest")
    else:
        now = config.optimizer.learning_rate
        print(f"suggestion: --lr={found.suggestion:g} (now {now})")
