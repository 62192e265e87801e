"""Looks into a trained network: what it gets wrong, and what its loss is made of, on one page.

    python scripts/analyze.py --workdir=runs/shapes
    python scripts/analyze.py --workdir=runs/coco --config=experiments/coco.py \\
        --config.data.root=TFDS --step=90000 --out=coco.html --figures

The page needs no network: kinds of errors as in COCO's analysis, precision over recall, calibration
of the scores, confusions, losses and positives by level, and figure 4 of the paper: which examples
the loss comes from. The numbers stand beside it as JSON. Data are the evaluation split of the run,
or of --config; --figures writes each figure as an SVG file, too.
"""

import json
import sys
from pathlib import Path

from absl import app, flags, logging

from retinanet_jax.analysis.analyze import analyze_workdir
from retinanet_jax.analysis.figures import draw_figures
from retinanet_jax.analysis.numbers import as_tree
from retinanet_jax.analysis.page import render
from retinanet_jax.compilation import keep_compilations
from retinanet_jax.config import DataConfig, from_config_dict
from retinanet_jax.main import CONFIG, EXPECTED, WORKDIR, parse_flags
from retinanet_jax.page.frame import standalone

_STEP = flags.DEFINE_integer("step", None, "of the checkpoint; the latest by default", 0)
_OUT = flags.DEFINE_string("out", "", "the page that is written; '': analysis.html in the workdir")
_MAX_IMAGES = flags.DEFINE_integer("max_images", 5000, "of more pictures, evenly spread ones", 1)
_FIGURES = flags.DEFINE_bool("figures", False, "write each figure as an SVG file, too")


def main(argv: list[str]) -> None:
    """Writes the page, the numbers, and the figures if asked to."""
    if len(argv) > 1:
        raise app.UsageError(f"unknown arguments: {' '.join(argv[1:])}")
    logging.set_verbosity(logging.WARNING)
    workdir = Path(WORKDIR.value).expanduser()
    out = Path(_OUT.value).expanduser() if _OUT.value else workdir / "analysis.html"
    try:
        config = from_config_dict(CONFIG.value) if CONFIG.value else None
        keep_compilations(config.data.cache_dir if config else DataConfig.cache_dir)
        analysis = analyze_workdir(
            workdir, config, _STEP.value, max_images=_MAX_IMAGES.value, on_batch=tell_progress
        )
    except EXPECTED as error:
        sys.exit(f"{type(error).__name__}: {error}")
    figures = draw_figures(analysis)
    files = {out: render(analysis, figures)}
    files[out.with_suffix(".json")] = json.dumps(as_tree(analysis), indent=1, ensure_ascii=False)
    if _FIGURES.value:
        folder = out.with_name(f"{out.stem}_figures")
        files |= {folder / f"{name}.svg": standalone(svg) for name, svg in figures.items()}
    try:
        for path, text in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    except OSError as error:
        sys.exit(f"{error.filename}: cannot be written: {error.strerror}; choose another --out")
    print(f"written: {out}, and in its folder {len(files) - 1} more")


def tell_progress(done: int, total: int) -> None:
    """A line that counts, where a person looks on."""
    if sys.stderr.isatty():
        print(f"\r{done}/{total} pictures", end="\n" if done == total else "", file=sys.stderr)


if __name__ == "__main__":
    flags.mark_flag_as_required("workdir")
    app.run(main, flags_parser=parse_flags)
