"""VoTT: NAME-export.json with all images of a project, or its <id>-asset.json with one image each.

An export has the `assets` by their ids, each with an `asset`, the image, and its `regions`; a file
of a project has the two of one image. The `boundingBox` of a region has left, top, width and height
in pixels of the image. A region with several tags is one object for each. Images that nobody has
opened yet, which an export of all assets also has, and videos, whose frames are assets of their
own, are left out.
"""

import re
from pathlib import Path
from typing import Any

from retinanet_jax.data.annotations import annotation_fields as fields
from retinanet_jax.data.annotations.file_names import names_of_address
from retinanet_jax.data.annotations.folder_files import ascii_head, parse_json, read_text
from retinanet_jax.data.annotations.outlines import Box, around_points
from retinanet_jax.data.annotations.raw import Layout
from retinanet_jax.data.annotations.split_content import (
    NO_BOX,
    OUTLINE,
    Content,
    ImageEntry,
    Region,
    SplitFileFormat,
)
from retinanet_jax.data.annotations.split_files import find_layout_of
from retinanet_jax.data.data_errors import DataError, Guard

NOT_VISITED = "images that were not opened for annotation, left out"
VIDEO = "videos, of which the frames are read, left out"
_EXPORT = "vott-json-export"
_VIDEO, _NOT_VISITED = 2, 0  # of an asset's `type` and `state`
_HEAD = 1 << 16
_SIDES = "left", "top", "width", "height"


def find(root: Path) -> Layout | None:
    """Returns the layout of VoTT's files in a folder, its split folders or its export, or of one.

    Raises:
      DataError: several files fit, and it is unclear which one is meant.
    """
    return find_layout_of(_VOTT, root, [_EXPORT])


def _is_vott(path: Path) -> bool:
    head = ascii_head(path, _HEAD)
    marks = (rb'"asset"\s*:\s*\{', rb'"regions"\s*:\s*\[', rb'"(state|type)"\s*:\s*\d')
    return all(re.search(mark, head) for mark in marks)


def _parse(path: Path, guard: Guard) -> Content:
    content = parse_json(read_text(path), path)
    assets = content.get("assets") if isinstance(content, dict) else None
    if isinstance(content, dict) and "asset" in content:
        assets = {path.name: content}
    if not isinstance(assets, dict):
        what = f"is {fields.short(content)}"
        raise DataError("annotation file", path, "", what, "write a JSON object with the assets")
    entries = []
    for key, found in assets.items():
        with guard:
            entries.append(_entry(found, path, f"asset {fields.short(key)}", guard))
    return Content(entries, _class_names(content, entries))


def _class_names(content: dict, entries: list[ImageEntry]) -> tuple[str, ...] | None:
    """The tags of the project in their order; None where it does not list all that occur."""
    tags = content.get("tags")
    names = [tag.get("name") for tag in tags if isinstance(tag, dict)] if tags else []
    used = {str(region.label) for entry in entries for region in entry.regions}
    complete = all(isinstance(name, str) for name in names) and used <= set(names)
    return tuple(dict.fromkeys(names)) if names and complete else None


def _entry(found: Any, path: Path, where: str, guard: Guard) -> ImageEntry:
    """An asset; without names, to leave it out, if it has not been annotated."""
    asset = fields.field(found, "asset", path, where)
    name = fields.text(asset, "name", path, where)
    where = f"asset {fields.short(name)}"
    regions = fields.entries(found.get("regions") or [], "regions", "regions", path, where)
    if not regions and (asset.get("type") == _VIDEO or asset.get("state") == _NOT_VISITED):
        reason = VIDEO if asset.get("type") == _VIDEO else NOT_VISITED
        return ImageEntry([], where, [], notes=(reason,))
    size = asset.get("size")
    size = fields.size(size.get("height"), size.get("width")) if isinstance(size, dict) else None
    objects: list[Region] = []
    for number, region in enumerate(regions):
        with guard:
            objects += _objects(region, number, path, where)
    return ImageEntry(_names(name, asset.get("path")), where, objects, size)


def _names(name: str, address: Any) -> list[str]:
    """What the image may be called; the folders of its path decide between images of one name."""
    names = names_of_address(name)
    if isinstance(address, str) and address.strip():
        plain = re.sub(r"\?.*", "", address.removeprefix("file:"))
        names += [one for one in names_of_address(plain) if one not in names]
    return names


def _objects(region: Any, number: int, path: Path, where: str) -> list[Region]:
    """The objects of a region, one for each of its tags."""
    place = f"region {number}"
    tags = fields.field(region, "tags", path, f"{where}: {place}")
    if not isinstance(tags, list) or not tags:
        what, fix = f"tags is {fields.short(tags)}", "give the region a tag, or delete it"
        raise DataError("tags", path, f"{where}: {place}", what, fix)
    tags = [tag for n, tag in enumerate(tags) if tag not in tags[:n]]
    return [Region(place, tag, region) for tag in tags]


def _box(shape: dict, path: Path, where: str, found: set[str]) -> Box | None:
    kind = shape.get("type")
    if kind in ("POINT", "POLYLINE"):
        found.add(NO_BOX)
        return None
    if kind == "POLYGON":
        found.add(OUTLINE)
    if shape.get("boundingBox") is not None:
        return tuple(fields.numbers(shape["boundingBox"], _SIDES, path, f"{where}: boundingBox"))
    points = fields.points(shape.get("points"), path, where, least=2)
    return around_points(*zip(*points, strict=True))


_VOTT = SplitFileFormat("vott", "VoTT", (".json",), _is_vott, _parse, _box)
