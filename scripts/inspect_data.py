"""Shows the data of an experiment as the network will see them, on one page, before training.

    python scripts/inspect_data.py --config=experiments/folder.py:small \\
        --config.data.root=FOLDER --out=look.html --fit_anchors

The page holds pictures out of the training pipeline with their boxes, counts by class and size,
how well the anchors cover the boxes and the boxes that they miss, what was skipped or changed, and
at its top what to mend. It needs no network: send it to whom you like. --fit_anchors searches size,
scales and ratios of anchors that cover more, and gives them as lines to copy.
"""

import sys
from pathlib import Path

from absl import app, flags, logging

from retinanet_jax.config import from_config_dict
from retinanet_jax.inspection.page import inspect_data
from retinanet_jax.main import CONFIG, EXPECTED, parse_flags

_OUT = flags.DEFINE_string("out", "inspection.html", "the page that is written")
_FIT = flags.DEFINE_bool("fit_anchors", False, "propose anchors that cover more of the boxes")
_MAX_IMAGES = flags.DEFINE_integer(
    "max_images", 10_000, "pictures of each split that are counted; of more, evenly spread ones", 1
)
flags.DEFINE_alias("fit-anchors", "fit_anchors")


def main(argv: list[str]) -> None:
    """Writes the page."""
    if len(argv) > 1:
        raise app.UsageError(f"unknown arguments: {' '.join(argv[1:])}")
    logging.set_verbosity(logging.WARNING)  # TFDS tells every file that it has written
    tree = CONFIG.value
    # No network is built: that pretrained weights are not named yet is no fault here.
    tree.model.norm, tree.model.frozen_stages = "batch", 0
    try:
        config = from_config_dict(tree)
        page = inspect_data(config, fit=_FIT.value, max_images=_MAX_IMAGES.value)
    except EXPECTED as error:
        sys.exit(f"{type(error).__name__}: {error}")
    out = Path(_OUT.value).expanduser()
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(page, encoding="utf-8")
    print(f"written: {out} ({out.stat().st_size / 1e6:.1f} MB)")


if __name__ == "__main__":
    flags.mark_flag_as_required("config")
    app.run(main, flags_parser=parse_flags)
