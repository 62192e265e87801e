"""The boxes of the shapes of Darwin JSON."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from retinanet_jax.data.annotations import annotation_fields as fields
from retinanet_jax.data.annotations.outlines import Box, around_ellipse, around_points
from retinanet_jax.data.annotations.split_content import NO_BOX, OUTLINE
from retinanet_jax.data.data_errors import DataError, Guard
from retinanet_jax.data.formats.rle_masks import extents_of_runs

NO_SHAPE = "tags, texts and links, left out"
_WITHOUT_BOX = ("keypoint", "line", "skeleton", "eye", "graph")
_WITHOUT_SHAPE = ("tag", "string", "text", "link")
_SIDES = ("x", "y", "w", "h")


def box_of(
    entry: Any, masks: dict[str, Box], path: Path, where: str, found: set[str]
) -> Box | None:
    """Returns x, y, width, height around an annotation.

    None for an annotation without a box, with a note in `found`.

    Args:
      masks: boxes of the masks of the image, by annotation id.
    """
    if not isinstance(entry, dict):
        raise DataError("entry", path, where, f"is {fields.short(entry)}", "write a JSON object")
    for name, shape_box in _OUTLINES.items():
        if name in entry:
            found.add(OUTLINE)
            return shape_box(entry, path, where)
    if "mask" in entry:
        found.add(OUTLINE)
        return _box_of_mask(entry, masks, path, where)
    if "bounding_box" in entry:
        return _corner_and_size(entry, "bounding_box", path, where)
    if "raster_layer" in entry:  # the pixels of the masks
        return None
    for names, note in ((_WITHOUT_BOX, NO_BOX), (_WITHOUT_SHAPE, NO_SHAPE)):
        if any(name in entry for name in names):
            found.add(note)
            return None
    what = f"has the fields {', '.join(map(fields.short, list(entry)[:8])) or 'of no shape'}"
    raise DataError("shape", path, where, what, "draw it as a bounding box or a polygon")


def _corner_and_size(entry: Any, name: str, path: Path, where: str) -> Box:
    value = fields.field(entry, name, path, where)
    return tuple(fields.numbers(value, _SIDES, path, f"{where}: {name}"))


def _around_polygon(entry: dict, path: Path, where: str) -> Box:
    """`paths` in 2.0; `path` and perhaps `additional_paths` in 1.0."""
    polygon = entry["polygon"] if isinstance(entry["polygon"], dict) else {"paths": []}
    paths = polygon.get("paths")
    if paths is None:
        more = polygon.get("additional_paths") or []
        if not isinstance(more, list):
            what = f"additional_paths is {fields.short(more)}"
            raise DataError("polygon", path, where, what, "write a list of paths")
        paths = [polygon.get("path"), *more]
    if not isinstance(paths, list) or not paths:
        what = f"polygon is {fields.short(entry['polygon'])}"
        raise DataError("polygon", path, where, what, "write its paths, lists of points")
    points = [p for one in paths for p in fields.points(one, path, where, name="polygon")]
    return around_points(*zip(*points, strict=True))


def _around_ellipse(entry: dict, path: Path, where: str) -> Box:
    ellipse = entry["ellipse"]
    center, radius = (fields.field(ellipse, name, path, where) for name in ("center", "radius"))
    x, y = fields.numbers(center, ("x", "y"), path, f"{where}: center")
    rx, ry = fields.numbers(radius, ("x", "y"), path, f"{where}: radius")
    angle = fields.finite(ellipse.get("angle", 0)) or 0.0  # in radians
    return around_ellipse(x, y, rx, ry, angle)


def _around_cuboid(entry: dict, path: Path, where: str) -> Box:
    sides = [_corner_and_size(entry["cuboid"], name, path, where) for name in ("back", "front")]
    xs = [value for x, _, w, _ in sides for value in (x, x + w)]
    ys = [value for _, y, _, h in sides for value in (y, y + h)]
    return around_points(xs, ys)


def _around_table(entry: dict, path: Path, where: str) -> Box:
    table = entry.get("table", entry.get("simple_table"))
    return _corner_and_size(table, "bounding_box", path, where)


# A polygon may have its bounding box beside it.
_OUTLINES = {
    "polygon": _around_polygon,
    "ellipse": _around_ellipse,
    "cuboid": _around_cuboid,
    "table": _around_table,
    "simple_table": _around_table,
}


def _box_of_mask(entry: dict, masks: dict[str, Box], path: Path, where: str) -> Box:
    box = masks.get(str(entry.get("id")))
    if box is None:
        what = "is a mask without pixels in a raster_layer of the image"
        raise DataError("mask", path, where, what, "draw it again, or delete it")
    return box


def boxes_of_masks(
    annotations: Sequence[tuple[str, Any]],
    size: tuple[int, int] | None,
    path: Path,
    guard: Guard,
) -> dict[str, Box]:
    """Returns the boxes of the masks of an image, by the ids of their annotations.

    All masks are in one raster layer: runs of the number of a mask and a count of pixels, row by
    row. The guard collects the error of an invalid layer, or of one whose image has no size.
    """
    found = {}
    for where, entry in annotations:
        with guard:
            layer = entry.get("raster_layer") if isinstance(entry, dict) else None
            if layer is not None:
                runs, numbers = _checked(layer, size, path, where)
                boxes = {number: _around_runs(runs, number, size[1]) for number in numbers.values()}
                found |= {mask: boxes[n] for mask, n in numbers.items() if boxes[n] is not None}
    return found


def _checked(
    layer: Any, size: tuple[int, int] | None, path: Path, where: str
) -> tuple[np.ndarray, dict[str, int]]:
    """The runs as (number of the mask, pixels), and the numbers by the ids of the masks."""
    try:
        runs = np.asarray(layer["dense_rle"], np.int64).reshape(-1, 2)
        mapping = layer["mask_annotation_ids_mapping"]
        numbers = {str(mask): int(number) for mask, number in mapping.items()}
        if size is None or runs[:, 1].min() < 1 or runs[:, 1].sum() != size[0] * size[1]:
            raise ValueError
    except (TypeError, ValueError, KeyError, AttributeError, OverflowError):
        what = f"raster_layer is {fields.short(layer)} for an image of height and width {size}"
        fix = "write dense_rle for the pixels of the whole image, and the size of the slot"
        raise DataError("raster_layer", path, where, what, fix) from None
    return runs, numbers


def _around_runs(runs: np.ndarray, number: int, width: int) -> Box | None:
    """The box around the pixels of a mask; None if there are none."""
    ends = np.cumsum(runs[:, 1])
    last = ends[runs[:, 0] == number] - 1
    first = (ends - runs[:, 1])[runs[:, 0] == number]
    if not len(first):
        return None
    in_rows, in_columns = extents_of_runs(first, last, width)
    return in_columns[0], in_rows[0], in_columns[1], in_rows[1]
