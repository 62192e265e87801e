"""Analyze a trained network: one HTML page with its errors, calibration and loss.

    retinanet-jax analyze --model=runs/shapes
    retinanet-jax analyze --model=runs/coco --config=experiments/coco.py \\
        --config.data.root=TFDS --step=90000 --out=coco.html --figures

The page is self-contained. It shows the kinds of errors as in COCO's analysis, precision over
recall, the calibration of the scores, the confusion matrix, the loss and the positives by level,
and figure 4 of the paper: which examples the loss comes from. It analyzes the evaluation split of
the run, with the settings of the run; --data=FOLDER and --config.SECTION.FIELD=VALUE change them,
and --config replaces them. The numbers are written to PAGE_numbers.json beside PAGE.html; --figures
also writes PAGE_figures/*.svg.
"""

import argparse
import json
import sys
from pathlib import Path

from retinanet_jax.cli.model_arguments import add_workdir_arguments

PASSES_ON = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command. Fields of the config are passed on."""
    add_workdir_arguments(parser)
    add = parser.add_argument
    add("--config", help="experiment to use instead of the run's settings")
    add("--out", type=Path, help="HTML file to write; default: analysis.html in the workdir")
    add("--max_images", type=int, default=5000, help="analyze at most this many images")
    add("--figures", action="store_true", help="also write each plot as an SVG file")


def run(arguments: argparse.Namespace) -> None:
    """Analyzes the checkpoint and writes the page, the numbers and the plots."""
    from absl import logging

    from retinanet_jax.cli.config_arguments import read_config_of_run
    from retinanet_jax.cli.report_files import check_page_path
    from retinanet_jax.config.run_changes import cache_of
    from retinanet_jax.config.settings import ConfigError
    from retinanet_jax.reports.analysis.analyze_checkpoint import analyze_workdir
    from retinanet_jax.runtime.compilation_cache import keep_compilations

    if arguments.max_images < 1:
        raise ConfigError(f"--max_images: {arguments.max_images} must be at least 1")
    config = read_config_of_run("analyze", arguments)
    workdir = Path(arguments.model).expanduser()
    out = (arguments.out or workdir / "analysis.html").expanduser()
    if arguments.out or workdir.is_dir():
        check_page_path(out)
    logging.set_verbosity(logging.WARNING)
    keep_compilations(cache_of(config))
    analysis = analyze_workdir(
        workdir,
        config,
        arguments.step,
        max_images=arguments.max_images,
        on_batch=show_progress,
    )
    write(analysis, out, figures=arguments.figures)


def write(analysis, out: Path, *, figures: bool) -> None:
    """Writes the page at `out`, and next to it the numbers and, on request, the plots.

    Raises:
        ConfigError: a file cannot be written.
    """
    from retinanet_jax.cli.report_files import write_files
    from retinanet_jax.reports.analysis.analysis_json import to_json_tree
    from retinanet_jax.reports.analysis.analysis_page import render_analysis
    from retinanet_jax.reports.analysis.analysis_plots import draw_plots
    from retinanet_jax.reports.plot_style import svg_file

    drawn = draw_plots(analysis)
    # The names differ from those of a run's files, such as results.json and config.json.
    numbers = out.with_name(f"{out.stem}_numbers.json")
    files = {
        out: render_analysis(analysis, drawn),
        numbers: json.dumps(to_json_tree(analysis), indent=1, ensure_ascii=False),
    }
    if figures:
        folder = out.with_name(f"{out.stem}_figures")
        files |= {folder / f"{name}.svg": svg_file(plot, name) for name, plot in drawn.items()}
    write_files(out, files)
    print(f"written: {out}, {numbers.name}" + (f" and {folder.name}/" if figures else ""))


def show_progress(done: int, total: int) -> None:
    """Prints a line that counts, on a terminal only."""
    if sys.stderr.isatty():
        print(f"\r{done}/{total} images", end="\n" if done == total else "", file=sys.stderr)
