"""Flags for test-time augmentation and tiles in an evaluation, named as in `detect`."""

from typing import Any

from absl import flags

from retinanet_jax.config.settings import ConfigError
from retinanet_jax.inference.test_time_augmentation import MERGES

FLIP = flags.DEFINE_bool("flip", False, "Also detect in the mirrored images, and merge.")
SCALES = flags.DEFINE_list("scales", ["1"], "Scales to detect at and merge, such as 1,1.5.")
TILE = flags.DEFINE_string(
    "tile", "auto", "Side of the tiles in pixels, or none; auto uses config.data.tile."
)
OVERLAP = flags.DEFINE_float(
    "overlap", None, "Overlap of the tiles; default: config.data.tile_overlap."
)
MERGE = flags.DEFINE_enum("merge", "nms", MERGES, "How to merge the detections of views and tiles.")


def flags_in_use() -> list[str]:
    """Returns the names of the flags that the command line sets."""
    every = (FLIP, SCALES, TILE, OVERLAP, MERGE)
    return [flag.name for flag in every if flags.FLAGS[flag.name].present]


def evaluation_options() -> dict[str, Any]:
    """Returns the values of the flags as arguments of `evaluate_workdir`.

    Raises:
        ConfigError: --scales or --tile is not a number.
    """
    try:
        scales = tuple(map(float, SCALES.value))
    except ValueError:
        text = ",".join(SCALES.value)
        raise ConfigError(f"--scales={text}: not a list of numbers; write 1,1.5") from None
    words = {"auto": "auto", "none": None}
    try:
        tile = words[TILE.value] if TILE.value in words else int(TILE.value)
    except ValueError:
        raise ConfigError(f"--tile={TILE.value}: not a number of pixels or none") from None
    overlap = "auto" if OVERLAP.value is None else OVERLAP.value
    views = {"flip": FLIP.value, "scales": scales, "merge": MERGE.value}
    return views | {"tile": tile, "overlap": overlap}
