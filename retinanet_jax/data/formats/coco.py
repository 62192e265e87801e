"""Annotations in COCO's instances format, read entry by entry.

A file is a JSON object with `images` (id, file_name, width, height), `annotations` (id, image_id,
category_id, bbox [x, y, width, height] in pixels; area and iscrowd are optional) and `categories`
(id, name). Ids are any integers, with gaps.

Exports of many tools deviate from this. What has one meaning only is read and counted: ids and
numbers as text, repeated categories, a root category without boxes, missing annotation ids,
missing sizes, polygons or run lengths without `bbox`, backslashes.
"""

import collections
import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from retinanet_jax.data import images as images_lib
from retinanet_jax.data.archives import AnyPath
from retinanet_jax.data.data_errors import DataError, Guard, Report
from retinanet_jax.data.formats import annotation_fields as fields
from retinanet_jax.data.formats import json_stream
from retinanet_jax.data.formats.check_split import SKIPPED_OBJECT, ImageFacts, check_split
from retinanet_jax.data.formats.coco_categories import read_categories, usable_categories
from retinanet_jax.data.formats.file_names import check_name, find_image
from retinanet_jax.data.formats.join_categories import join_categories
from retinanet_jax.data.formats.raw import RawImage, RawObject, RawSplit
from retinanet_jax.data.records import Categories, ImageRecord, instances

OUTLINE_BOX = "no bbox, that of the polygon or mask taken"
SIZE_FROM_FILE = "no width or height, the file's taken"
_OUTLINE = "box of the outline"  # a field of our own: entries are kept without their polygons


@dataclasses.dataclass(frozen=True)
class CocoAnnotations:
    """The images of one split with their objects, and the report of reading them."""

    images: tuple[ImageRecord, ...]
    categories: Categories
    report: Report

    def ground_truth(self) -> dict:
        """COCO's instances JSON: boxes and areas as annotated, without polygons."""
        return instances(self.images, self.categories)


def read_annotations(
    path: AnyPath, image_dir: AnyPath, on_error: str = "strict", *, annotated: bool = True
) -> CocoAnnotations:
    """Reads and checks an annotation file of a release, whose images are as stored (no EXIF).

    Image files are opened for their size only; whether they decode is checked when they are
    prepared. The checks are those of `check_split`.

    Args:
      path: the instances JSON.
      image_dir: the folder that `file_name` is relative to.
      on_error: 'strict' raises one error that lists all errors; 'skip' leaves out the image or
        object and counts it. An invalid file, invalid categories or a split without a usable
        image raise in both.
      annotated: whether the list `annotations` is required; the image_info of COCO's test splits
        has none.

    Raises:
      DataError: names the file, the entry's id, the field and the fix.
    """
    if not image_dir.is_dir():
        fix = "put the images there, or set data.root to the folder that has them"
        raise DataError("missing folder", image_dir, "", "is not a folder", fix)
    guard = Guard(on_error, Report())
    raw = read_coco(path, image_dir, guard, annotated=annotated)
    categories = join_categories([raw])
    images = check_split(raw, _stored_size, categories, guard, path=path, exif="stored")
    return CocoAnnotations(tuple(images), categories, guard.report)


def _stored_size(image: RawImage) -> ImageFacts:
    return ImageFacts(images_lib.file_size(image.path))


def read_coco(
    path: AnyPath,
    image_dir: AnyPath | Callable[[list[str]], AnyPath],
    guard: Guard,
    *,
    annotated: bool = True,
    root: Path | None = None,
) -> RawSplit:
    """The images and objects of an instances JSON; see `read_annotations`, and `find_image`.

    Args:
      image_dir: the folder that `file_name` is relative to, or a function that chooses it, given
        all names.

    Raises:
      DataError: the file cannot be read, or its categories are invalid.
    """
    return _Reader(path, image_dir, guard, root).read(annotated)


def read_json(path: AnyPath, *, annotated: bool = True) -> dict:
    """The instances JSON as a dict whose `images`, `annotations`, `categories` are lists.

    Polygons and masks (`segmentation`) are dropped; they would be most of it. Where there is no
    box, theirs is kept. Without `annotated`, the list `annotations` may be missing.

    Raises:
      DataError: the file is missing or not JSON, not an object, or a field is missing or not a
        list.
    """
    try:
        with path.open("rb") as file:
            content = json_stream.load(file, _without_outline)
    except OSError as error:
        fix = "write it there, or fix data.root, the split or data.annotations"
        raise DataError("annotation file", path, "", error.strerror or str(error), fix) from error
    except (ValueError, RecursionError) as error:
        fix = "export the annotations again as COCO instances JSON"
        raise DataError("annotation file", path, "", f"is not JSON ({error})", fix) from error
    if not isinstance(content, dict):
        fix = "export it as COCO JSON"
        raise DataError("annotation file", path, "", "is not a JSON object", fix)
    if not annotated:
        content.setdefault("annotations", [])
    for field in ("images", "annotations", "categories"):
        if not isinstance(content.get(field), list):
            fix = f"a COCO instances file has {field!r}, a list (empty if there are none)"
            raise DataError("annotation file", path, "", f"has no list {field!r}", fix)
    return content


def _without_outline(name: str, entry: Any) -> Any:
    if not isinstance(entry, dict):
        return entry
    kept = {sys.intern(field): v for field, v in entry.items() if field != "segmentation"}
    if name == "annotations" and _is_empty(kept.get("bbox")):
        kept[_OUTLINE] = outline_box(entry.get("segmentation"))
    return kept


def _is_empty(bbox: Any) -> bool:
    """Whether an entry states no box: none, null, [], or four zeros or nulls."""
    if bbox is None or bbox == []:
        return True
    return isinstance(bbox, list) and all(v is None or v == 0 for v in bbox)


def outline_box(outline: Any) -> list[float] | None:
    """The bounding box [x, y, width, height] of COCO polygons or run lengths; None if invalid."""
    try:
        if isinstance(outline, dict):
            from pycocotools import mask as run_lengths  # here: benchmarks of a network lack it

            height, width = outline["size"]
            if isinstance(outline["counts"], list):
                outline = run_lengths.frPyObjects(outline, height, width)
            box = run_lengths.toBbox(outline).tolist()
            return box if min(box[2:]) > 0 else None
        points = np.concatenate([np.array(p, np.float64).reshape(-1, 2) for p in outline])
        low, high = points.min(axis=0), points.max(axis=0)
        return [*low.tolist(), *(high - low).tolist()] if np.isfinite(points).all() else None
    except Exception:  # anything may stand there, and the entry is then one without a box
        return None


def check_ground_truth(content: dict, path: AnyPath) -> Categories:
    """Checks a file to score against, whose images need not exist; its categories.

    Boxes may be flat or outside their image, as some official ones are; COCO's evaluation accepts
    them.

    Raises:
      DataError: an id is missing, of the wrong type or used twice; a box is not four numbers or an
        area not a number.
    """
    categories = read_categories(content["categories"], path)
    guard = Guard("strict", Report())
    seen: dict[str, set[int]] = {"images": set(), "annotations": set()}
    for section, ids in seen.items():
        for place, entry in enumerate(content[section]):
            with guard:
                where = f"{section}[{place}]"
                entry_id = fields.integer(entry, "id", path, where)
                if entry_id in ids:
                    what, fix = f"id {entry_id} is used twice", "give each its own"
                    raise DataError("id used twice", path, where, what, fix)
                ids.add(entry_id)
                if section == "annotations":
                    _check_object(entry, path, f"{where} (id {entry_id})", categories)
    guard.finish(path)
    return categories


def _check_object(entry: dict, path: AnyPath, where: str, categories: Categories) -> None:
    fields.integer(entry, "image_id", path, where)
    fields.category(entry, categories.ids, path, where)
    fields.box(entry, path, where)
    fields.field(entry, "area", path, where)
    fields.area(entry, path, where)
    fields.flag(entry, "iscrowd", path, where)


class _Reader:
    """State of one reading: the file, and the ids seen so far."""

    def __init__(
        self,
        path: AnyPath,
        image_dir: AnyPath | Callable[[list[str]], AnyPath],
        guard: Guard,
        root: Path | None,
    ):
        self.path, self.image_dir, self.root = path, image_dir, root
        self.guard, self.report = guard, guard.report
        self.image_ids: set[int] = set()  # of all entries, also of invalid ones
        self.annotation_ids: set[int] = set()

    def read(self, annotated: bool) -> RawSplit:
        content = read_json(self.path, annotated=annotated)
        if not content["images"]:
            fix = "check data.root and the split"
            raise DataError("empty split", self.path, "images", "has no image", fix)
        entries = content["annotations"]
        used = {fields.as_integer(e.get("category_id")) for e in entries if isinstance(e, dict)}
        names, ids = usable_categories(content["categories"], self.path, used, self.report)
        self.names = dict(zip(ids, names, strict=True))
        if callable(self.image_dir):
            files = [e.get("file_name") for e in content["images"] if isinstance(e, dict)]
            self.image_dir = self.image_dir([name for name in files if isinstance(name, str)])
        images = self.read_images(content["images"])
        objects = collections.defaultdict(list)
        for place, entry in enumerate(entries):
            with self.guard:
                if (found := self.read_object(entry, place, images)) is not None:
                    objects[found[0]].append(found[1])
        whole = (im._replace(objects=tuple(objects[i])) for i, im in images.items())
        return RawSplit(tuple(whole), tuple(names), tuple(ids))

    def read_images(self, entries: list) -> dict[int, RawImage]:
        # Two images with one id make every annotation of that id ambiguous: both are errors.
        ids = collections.Counter(
            fields.as_integer(e.get("id")) for e in entries if isinstance(e, dict)
        )
        images = {}
        for place, entry in enumerate(entries):
            with self.guard:
                image = self.read_image(entry, place, ids)
                images[image.id] = image
        return images

    def read_image(self, entry, place: int, ids: collections.Counter) -> RawImage:
        where = f"images[{place}]"
        image_id = fields.integer(entry, "id", self.path, where, self.report)
        where = f"image id {image_id}"
        self.image_ids.add(image_id)
        if ids[image_id] > 1:
            what, fix = f"{ids[image_id]} images have this id", "give each image its own id"
            place = f"{where} (images[{place}])"
            raise DataError("image id used twice", self.path, place, what, fix)
        name = fields.text(entry, "file_name", self.path, where)
        check_name(name, self.path, where)
        full = f"{self.path}: {where}"
        path = find_image(self.image_dir, name, self.report, full, root=self.root)
        size = self.read_size(entry, where)
        return RawImage(name, path, self.path, (), where, size, id=image_id)

    def read_size(self, entry: dict, where: str) -> tuple[int, int] | None:
        if not entry.get("height") or not entry.get("width"):
            self.report.add(SIZE_FROM_FILE, f"{self.path}: {where}")
            return None
        height, width = (
            fields.integer(entry, side, self.path, where, self.report)
            for side in ("height", "width")
        )
        return height, width

    def read_object(self, entry, place: int, images: dict) -> tuple[int, RawObject] | None:
        where, object_id = f"annotations[{place}]", None
        if isinstance(entry, dict) and entry.get("id") is not None:
            object_id = fields.integer(entry, "id", self.path, where, self.report)
            where = f"annotation id {object_id}"
        image_id = fields.integer(entry, "image_id", self.path, where, self.report)
        if image_id not in images:
            self.check_skipped(image_id, where)
            return None
        if object_id in self.annotation_ids:
            fix = "give each annotation its own id"
            raise DataError("annotation id used twice", self.path, where, "is used twice", fix)
        category = fields.category(entry, self.names, self.path, where, self.report)
        crowd = fields.flag(entry, "iscrowd", self.path, where)
        crowd |= fields.flag(entry, "ignore", self.path, where)
        area = fields.area(entry, self.path, where, self.report)
        box = self.read_box(entry, where)
        if object_id is not None:
            self.annotation_ids.add(object_id)
            where = ""
        return image_id, RawObject(self.names[category], box, where, area, crowd, object_id)

    def check_skipped(self, image_id: int, where: str) -> None:
        """Counts an object whose image was skipped; an object of no image is an error."""
        if image_id not in self.image_ids:
            what = f"image_id {image_id} is not among the images"
            raise DataError("unknown image", self.path, where, what, "add the image or fix the id")
        self.report.add(SKIPPED_OBJECT, f"{self.path}: {where}")

    def read_box(self, entry: dict, where: str) -> tuple[float, float, float, float]:
        if entry.get(_OUTLINE) is not None:
            self.report.add(OUTLINE_BOX, f"{self.path}: {where}")
            return tuple(entry[_OUTLINE])
        return tuple(fields.box(entry, self.path, where, self.report))
