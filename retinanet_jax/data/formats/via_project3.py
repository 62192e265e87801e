"""The project JSON of VGG Image Annotator 3, converted to the form of version 2.

`file` lists the images, `view` the files that are shown, `metadata` the shapes of the views, and
`attribute` the names of attributes and of their options.
"""

import collections
from pathlib import Path
from typing import Any

from retinanet_jax.data.annotations import annotation_fields as fields
from retinanet_jax.data.annotations.split_content import ImageEntry, Region
from retinanet_jax.data.data_errors import DataError, Guard

_IMAGE = 2  # the type of a file
# Numbers of shapes: the name in version 2, and the fields of the coordinates.
_SHAPES = {
    1: ("point",),
    2: ("rect", "x", "y", "width", "height"),
    3: ("circle", "cx", "cy", "r"),
    4: ("ellipse", "cx", "cy", "rx", "ry"),
    5: ("line",),
    6: ("polyline",),
    7: ("polygon",),
    8: ("polygon",),  # the four extreme points of a rectangle
}


def is_one(head: bytes) -> bool:
    """Returns whether the first bytes of a file are those of a project of version 3."""
    return b'"vid_list"' in head and b'"project"' in head


def is_project(content: Any) -> bool:
    """Returns whether the content of a JSON file is a project of version 3."""
    sections = ("file", "view", "metadata", "attribute")
    return isinstance(content, dict) and all(isinstance(content.get(s), dict) for s in sections)


def entries(content: dict, path: Path, guard: Guard) -> list[ImageEntry]:
    """Returns the images with their shapes in the form of version 2.

    Attributes are the labels of the regions.
    """
    regions = collections.defaultdict(list)
    for key, shape in content["metadata"].items():
        with guard:
            where = f"metadata {fields.short(key)}"
            coordinates = fields.field(shape, "xy", path, where)
            if coordinates:  # of a shape; otherwise it describes the whole file
                attributes = _attributes(shape.get("av"), content["attribute"])
                region = Region(where, attributes, _shape(coordinates))
                regions[str(fields.field(shape, "vid", path, where))].append(region)
    found = []
    for view, shown in content["view"].items():
        with guard:
            where = f"view {fields.short(view)}"
            files = fields.field(shown, "fid_list", path, where)
            if not isinstance(files, list) or len(files) != 1:
                what, fix = f"fid_list is {fields.short(files)}", "annotate one image per view"
                raise DataError("view", path, where, what, fix)
            file = content["file"].get(str(files[0]))
            if fields.field(file, "type", path, where) != _IMAGE:
                what, fix = "shows a video or sound", "extract the frames and annotate them"
                raise DataError("video", path, where, what, fix)
            name = file.get("fname") or file.get("src")
            found.append(ImageEntry([name], f"image {fields.short(name)}", regions[view]))
    return found


def _shape(coordinates: Any) -> Any:
    """`shape_attributes` of version 2; the coordinates themselves where they are invalid."""
    if not isinstance(coordinates, list) or not isinstance(coordinates[0], int):
        return coordinates
    name, *names = _SHAPES.get(coordinates[0], ("",))
    values = coordinates[1:]
    if name == "polygon":
        return {"name": name, "all_points_x": values[::2], "all_points_y": values[1::2]}
    if not name or (names and len(names) != len(values)):
        return coordinates
    return {"name": name, **dict(zip(names, values, strict=False))}


def _attributes(values: Any, attributes: dict) -> dict[str, Any]:
    """Values by the names of their attributes; numbers of options are replaced by the options."""
    found = {}
    for number, value in values.items() if isinstance(values, dict) else ():
        attribute = attributes.get(number)
        if not isinstance(attribute, dict):
            continue
        options = attribute.get("options")
        if isinstance(options, dict) and isinstance(value, str):
            value = options.get(value, value)
        found[str(attribute.get("aname", number))] = value
    return found
