"""Look into a trained network on one page: what it gets wrong, and what its loss is made of.

    retinanet-jax analyze --workdir=runs/shapes
    retinanet-jax analyze --workdir=runs/coco --config=experiments/coco.py \\
        --config.data.root=TFDS --step=90000 --out=coco.html --figures

The page needs no network: kinds of errors as in COCO's analysis, precision over recall, calibration
of the scores, confusions, losses and positives by level, and figure 4 of the paper: which examples
the loss comes from. The numbers stand beside it as JSON. Data are the evaluation split of the run,
or of --config; --figures writes each figure as an SVG file, too.
"""

import argparse
import json
import sys
from pathlib import Path

PASSES_ON = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The checkpoint, the data and the page; fields of the config are passed on."""
    add = parser.add_argument
    add("--workdir", required=True, type=Path, help="of the run")
    add("--config", help="experiment file that names other data than the run's; and --config.x=y")
    add("--step", type=int, help="of the checkpoint; the latest by default")
    add("--out", type=Path, help="the page that is written; default: WORKDIR/analysis.html")
    add("--max_images", type=int, default=5000, help="of more images, evenly spread ones")
    add("--figures", action="store_true", help="write each figure as an SVG file, too")


def run(arguments: argparse.Namespace) -> None:
    """Writes the page, the numbers, and the figures if asked to."""
    from absl import logging

    from retinanet_jax.cli.config_arguments import read_config
    from retinanet_jax.config.sections import DataConfig
    from retinanet_jax.config.settings import ConfigError, from_config_dict
    from retinanet_jax.reports.analysis.analyze_checkpoint import analyze_workdir
    from retinanet_jax.runtime.compilation_cache import keep_compilations

    if arguments.max_images < 1:
        raise ConfigError(f"--max_images: {arguments.max_images} is not 1 or more")
    config = None
    if arguments.config or arguments.passed_on:
        config = from_config_dict(read_config("analyze", arguments))
    logging.set_verbosity(logging.WARNING)
    keep_compilations(config.data.cache_dir if config else DataConfig.cache_dir)
    workdir = arguments.workdir.expanduser()
    analysis = analyze_workdir(
        workdir,
        config,
        arguments.step,
        max_images=arguments.max_images,
        on_batch=tell_progress,
    )
    out = (arguments.out or workdir / "analysis.html").expanduser()
    write(analysis, out, figures=arguments.figures)


def write(analysis, out: Path, *, figures: bool) -> None:
    """The page at `out`, and beside it the numbers and, if asked for, the figures.

    Raises:
        ConfigError: they cannot be written there.
    """
    from retinanet_jax.config.settings import ConfigError
    from retinanet_jax.reports.analysis.analysis_figures import draw_figures
    from retinanet_jax.reports.analysis.analysis_page import render
    from retinanet_jax.reports.analysis.as_json import as_tree
    from retinanet_jax.reports.html.frame import standalone

    drawn = draw_figures(analysis)
    files = {out: render(analysis, drawn)}
    files[out.with_suffix(".json")] = json.dumps(as_tree(analysis), indent=1, ensure_ascii=False)
    if figures:
        folder = out.with_name(f"{out.stem}_figures")
        files |= {folder / f"{name}.svg": standalone(svg) for name, svg in drawn.items()}
    try:
        for path, text in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    except OSError as error:
        what = f"--out: {error.filename} cannot be written: {error.strerror}; name another"
        raise ConfigError(what) from error
    print(f"written: {out}, and in its folder {len(files) - 1} more")


def tell_progress(done: int, total: int) -> None:
    """A line that counts, where a person looks on."""
    if sys.stderr.isatty():
        print(f"\r{done}/{total} images", end="\n" if done == total else "", file=sys.stderr)
