"""Annotations in COCO's instances format, read and checked entry by entry.

A file is a JSON object with `images` (id, file_name, width, height), `annotations` (id, image_id,
category_id, bbox [x, y, width, height] in pixels; area and iscrowd where there are any) and
`categories` (id, name). Ids are any integers, with gaps; labels are the places of the categories
in the file, contiguous from 0.
"""

import collections
import dataclasses
import sys
from pathlib import PurePosixPath, PureWindowsPath

from tqdm import tqdm

from retinanet_jax.data import images as images_lib
from retinanet_jax.data.archives import AnyPath
from retinanet_jax.data.data_errors import DataError, Guard, Report
from retinanet_jax.data.formats import annotation_fields as fields
from retinanet_jax.data.formats import json_stream
from retinanet_jax.data.records import Annotation, Categories, ImageRecord, instances

__all__ = [
    "Annotation",
    "Categories",
    "CocoAnnotations",
    "DataError",
    "ImageRecord",
    "Report",
    "read_annotations",
    "read_categories",
    "read_json",
]

# A side below this many pixels would vanish in float32 coordinates divided by the image's size.
MIN_SIDE = 1e-3
# Annotators' rounding: a box that leaves its image by less is clipped without being counted.
OUTSIDE_TOLERANCE = 0.5


@dataclasses.dataclass(frozen=True)
class CocoAnnotations:
    """The images of one split with their objects, and what was skipped on the way."""

    images: tuple[ImageRecord, ...]
    categories: Categories
    report: Report

    def ground_truth(self) -> dict:
        """The content as COCO's instances JSON: boxes and areas as given, polygons left out."""
        return instances(self.images, self.categories)


def read_annotations(
    path: AnyPath, image_dir: AnyPath, on_error: str = "strict", *, annotated: bool = True
) -> CocoAnnotations:
    """Reads and checks an annotation file against its folder of images.

    Image files are opened for their size only; whether they decode shows when they are prepared.
    A box partly outside its image is kept (clipped for training) and counted in the report; one
    without any area inside is an error.

    Args:
      path: the instances JSON.
      image_dir: the folder that `file_name` is relative to.
      on_error: 'strict' reads to the end and raises one error that lists all errors; 'skip' leaves
        the image or object out and counts it in the report. A file that is no annotation file at
        all, broken categories or a split without a usable image stop in both.
      annotated: whether there has to be a list `annotations`; the image_info of COCO's test splits
        has none.

    Raises:
      DataError: names the file, the entry's id, the field and the fix.
    """
    return _Reader(path, image_dir, on_error).read(annotated)


def read_json(path: AnyPath, *, annotated: bool = True) -> dict:
    """The instances JSON as a dict whose `images`, `annotations`, `categories` are lists.

    Polygons (`segmentation`) are left out; they would be most of it. What is not `annotated` may
    lack the list `annotations`, which is empty then.

    Raises:
      DataError: no such file, no JSON, not an object, or a field is missing or no list.
    """
    try:
        with path.open("rb") as file:
            content = json_stream.load(file, _without_polygons)
    except OSError as error:
        fix = "write it there, or fix data.root, the split or data.annotations"
        raise DataError("annotation file", path, "", error.strerror or str(error), fix) from error
    except (ValueError, RecursionError) as error:
        fix = "export the annotations again as COCO instances JSON"
        raise DataError("annotation file", path, "", f"is no JSON ({error})", fix) from error
    if not isinstance(content, dict):
        raise DataError("annotation file", path, "", "is no JSON object", "export it as COCO JSON")
    if not annotated:
        content.setdefault("annotations", [])
    for field in ("images", "annotations", "categories"):
        if not isinstance(content.get(field), list):
            fix = f"a COCO instances file has {field!r}, a list (empty if there are none)"
            raise DataError("annotation file", path, "", f"has no list {field!r}", fix)
    return content


def _without_polygons(name: str, entry):
    if not isinstance(entry, dict):
        return entry
    return {sys.intern(field): v for field, v in entry.items() if field != "segmentation"}


def read_categories(entries: list, path: AnyPath) -> Categories:
    """The categories in the order of the file.

    Raises:
      DataError: none at all, an id or name that is missing, of the wrong type or used twice.
    """
    if not entries:
        raise DataError("categories", path, "categories", "is empty", "list at least one category")
    names, ids = [], []
    for place, entry in enumerate(entries):
        where = f"categories[{place}]"
        category_id = fields.integer(entry, "id", path, where)
        name = fields.text(entry, "name", path, where)
        for value, field, seen in ((category_id, "id", ids), (name, "name", names)):
            if value in seen:
                what = f"{field} {value!r} is used twice"
                raise DataError("categories", path, where, what, "give each category its own")
            seen.append(value)
    return Categories(tuple(names), tuple(ids))


def check_ground_truth(content: dict, path: AnyPath) -> Categories:
    """Checks a file to score against, whose images need not be there; its categories.

    Boxes may be flat or outside of their image, as some official ones are: they score as COCO has
    it.

    Raises:
      DataError: an id is missing, of the wrong type or used twice; a box is not four numbers or an
        area not one.
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
    fields.crowd(entry, path, where)


class _Reader:
    """State of one reading: the file, what was seen already, and the report."""

    def __init__(self, path: AnyPath, image_dir: AnyPath, on_error: str):
        self.path, self.image_dir = path, image_dir
        self.report = Report()
        self.guard = Guard(on_error, self.report)
        self.image_ids: set[int] = set()
        self.file_names: set[str] = set()
        self.annotation_ids: set[int] = set()

    def read(self, annotated: bool) -> CocoAnnotations:
        if not self.image_dir.is_dir():
            fix = "put the images there, or set data.root to the folder that has them"
            raise DataError("missing folder", self.image_dir, "", "is not a folder", fix)
        content = read_json(self.path, annotated=annotated)
        self.categories = read_categories(content["categories"], self.path)
        self.labels = {c: label for label, c in enumerate(self.categories.ids)}
        records = self.read_images(content["images"])
        objects = collections.defaultdict(list)
        for place, entry in enumerate(content["annotations"]):
            with self.guard:
                image_id, annotation = self.read_annotation(entry, place, records)
                objects[image_id].append(annotation)
        self.guard.finish(self.path)
        images = tuple(
            dataclasses.replace(r, annotations=tuple(objects[r.id])) for r in records.values()
        )
        return CocoAnnotations(images, self.categories, self.report)

    def read_images(self, entries: list) -> dict[int, ImageRecord]:
        # Two images with one id make every annotation of that id ambiguous: both have to go.
        ids = collections.Counter(
            e["id"] for e in entries if isinstance(e, dict) and type(e.get("id")) is int
        )
        records = {}
        # A folder or an archive of 100,000 images takes a while the first time.
        progress = tqdm(entries, "reading image sizes", delay=2, leave=False, disable=None)
        for place, entry in enumerate(progress):
            with self.guard:
                record = self.read_image(entry, place, ids)
                records[record.id] = record
        if not records:
            self.guard.finish(self.path)
            what = "has no image" if not entries else f"none of {len(entries)} images is usable"
            summary = self.report.summary().replace("\n", "; ")
            fix = "check data.root and the split" + (f" ({summary})" if summary else "")
            raise DataError("empty split", self.path, "images", what, fix)
        return records

    def read_image(self, entry, place: int, ids: collections.Counter) -> ImageRecord:
        where = f"images[{place}]"
        image_id = fields.integer(entry, "id", self.path, where)
        where = f"image id {image_id}"
        self.image_ids.add(image_id)
        if ids[image_id] > 1:
            what, fix = f"{ids[image_id]} images have this id", "give each image its own id"
            place = f"{where} (images[{place}])"
            raise DataError("image id used twice", self.path, place, what, fix)
        file_name = _file_name(entry, self.path, where)
        if file_name in self.file_names:
            what, fix = f"file_name {file_name!r} is used twice", "list each file once"
            raise DataError("image file used twice", self.path, where, what, fix)
        self.file_names.add(file_name)
        size = tuple(
            fields.integer(entry, field, self.path, where) for field in ("height", "width")
        )
        self.check_size(self.image_dir / file_name, size, where)
        return ImageRecord(image_id, file_name, self.image_dir / file_name, *size)

    def check_size(self, path: AnyPath, size: tuple[int, int], where: str) -> None:
        try:
            stored = images_lib.file_size(path)
        except DataError as error:
            fix = "or fix data.root"
            if "\\" in path.name:
                fix = "folders in file_name are parted by /, not by \\"
            raise DataError(error.reason, self.path, where, str(error), fix) from error
        if stored != size:
            what, fix = _disagreement(path, size, stored)
            raise DataError("image size disagrees", self.path, where, what, fix)

    def read_annotation(self, entry, place: int, records: dict) -> tuple[int, Annotation]:
        annotation_id = fields.integer(entry, "id", self.path, f"annotations[{place}]")
        where = f"annotation id {annotation_id}"
        image = self.image_of(entry, where, records)
        if annotation_id in self.annotation_ids:
            fix = "give each annotation its own id"
            raise DataError("annotation id used twice", self.path, where, "is used twice", fix)
        self.annotation_ids.add(annotation_id)
        category_id = fields.category(entry, self.labels, self.path, where)
        crowd = fields.crowd(entry, self.path, where)
        area = fields.area(entry, self.path, where)
        bbox = self.read_box(entry, where, image)
        if area is None:
            self.report.add("no area, the box's taken", f"{self.path}: {where}")
            area = bbox[2] * bbox[3]
        label = self.labels[category_id]
        return image.id, Annotation(annotation_id, label, category_id, bbox, area, crowd)

    def image_of(self, entry: dict, where: str, records: dict) -> ImageRecord:
        image_id = fields.integer(entry, "image_id", self.path, where)
        if image_id in records:
            return records[image_id]
        if image_id in self.image_ids:
            what = f"its image (id {image_id}) was skipped"
            raise DataError("object of a skipped image", self.path, where, what, "fix the image")
        what = f"image_id {image_id} is not among the images"
        raise DataError("unknown image", self.path, where, what, "add the image or fix the id")

    def read_box(self, entry: dict, where: str, image: ImageRecord) -> tuple:
        numbers = fields.box(entry, self.path, where)
        x, y, width, height = numbers
        if width < MIN_SIDE or height < MIN_SIDE:
            what = f"bbox {numbers} has width {width:g} and height {height:g}"
            fix = f"sides are at least {MIN_SIDE:g} pixels, in the order [x, y, width, height]"
            raise DataError("box without area", self.path, where, what, fix)
        inside = min(x + width, image.width) - max(x, 0), min(y + height, image.height) - max(y, 0)
        if min(inside) < MIN_SIDE:
            what = f"bbox {numbers} lies outside its image of {image.width} x {image.height}"
            fix = "write [x, y, width, height] in pixels of the stored image"
            raise DataError("box outside its image", self.path, where, what, fix)
        if max(width - inside[0], height - inside[1]) > OUTSIDE_TOLERANCE:
            self.report.add("box partly outside, clipped", f"{self.path}: {where}")
        return x, y, width, height


def _file_name(entry, path: AnyPath, where: str) -> str:
    """A path below the image folder; what leaves the folder is refused."""
    name = fields.text(entry, "file_name", path, where)
    parts = PurePosixPath(name).parts
    absolute = name.startswith("/") or PureWindowsPath(name).drive
    if absolute or ".." in parts or ".." in PureWindowsPath(name).parts or "\0" in name:
        what = f"file_name {fields.short(name)} leaves the image folder"
        raise DataError("file_name", path, where, what, "write it relative to the image folder")
    return name


def _disagreement(path: AnyPath, size: tuple[int, int], stored: tuple[int, int]) -> tuple[str, str]:
    """What to say of an image whose stored size (height, width) is not the annotated one."""
    what = f"height x width is {size[0]} x {size[1]}, but {path} has {stored[0]} x {stored[1]}"
    if size != stored[::-1]:
        return what, "write the file's own size and boxes that belong to it"
    if images_lib.is_shown_rotated(images_lib.read_file(path)):
        what += ", which EXIF tells viewers to rotate"
        fix = "turn the pixels in the file (ImageMagick: mogrify -auto-orient)"
        return what, f"{fix} or annotate the image as it is stored"
    return what, "exchange height and width, and see whether the boxes belong to this image"
