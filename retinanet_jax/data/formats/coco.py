"""Annotations in COCO's instances format, read entry by entry.

A file is a JSON object with `images` (id, file_name, width, height), `annotations` (id, image_id,
category_id, bbox [x, y, width, height] in pixels; area and iscrowd are optional) and `categories`
(id, name). Ids are any integers, with gaps.

Exports of many tools deviate from this. Unambiguous deviations are read and counted: ids and
numbers as text, repeated categories, a root category without boxes, missing annotation ids, missing
sizes, polygons or run lengths without `bbox`, backslashes.
"""

import collections
import dataclasses
from collections.abc import Callable
from pathlib import Path

from retinanet_jax.data import images as images_lib
from retinanet_jax.data.annotations import annotation_fields as fields
from retinanet_jax.data.annotations.check_split import SKIPPED_OBJECT, ImageFacts, check_split
from retinanet_jax.data.annotations.file_names import check_name, find_image, leads_out
from retinanet_jax.data.annotations.ignore_marks import is_ignored
from retinanet_jax.data.annotations.image_finder import ImageFinder
from retinanet_jax.data.annotations.join_categories import join_categories
from retinanet_jax.data.annotations.outlines import ROTATED, around_turned
from retinanet_jax.data.annotations.raw import RawImage, RawObject, RawSplit
from retinanet_jax.data.archives import AnyPath
from retinanet_jax.data.data_errors import DataError, Guard, Report
from retinanet_jax.data.formats.coco_categories import usable_categories
from retinanet_jax.data.formats.coco_json import OUTLINE_FIELD, ROTATION_FIELD, read_json
from retinanet_jax.data.records import Categories, ImageRecord, instances

OUTLINE_BOX = "no bbox, bounding box of the polygon or mask used"
SIZE_FROM_FILE = "no width or height, size of the file used"


@dataclasses.dataclass(frozen=True)
class CocoAnnotations:
    """The images of one split with their objects, and the report of reading them."""

    images: tuple[ImageRecord, ...]
    categories: Categories
    report: Report

    def ground_truth(self) -> dict:
        """Returns COCO's instances JSON: boxes and areas as annotated, without polygons."""
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
      DataError: the data is invalid; the message names the file, entry id, field and fix.
    """
    if not image_dir.is_dir():
        fix = "put the images there, or set data.root to the folder that contains them"
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
    split: str = "",
) -> RawSplit:
    """Returns the images and objects of an instances JSON; see `read_annotations`.

    Args:
      image_dir: the folder that `file_name` is relative to, or a function that chooses it, given
        all names.
      root: folder of a dataset whose images may also be in other folders: those of its splits, see
        `find_image`, or any folder that has one image of this name, see `ImageFinder`.
      split: split that the file annotates; images in folders of other splits are not used.

    Raises:
      DataError: the file cannot be read, or its categories are invalid.
    """
    return _Reader(path, image_dir, guard, root, split).read(annotated)


class _Reader:
    """State of one reading: the file, and the ids seen so far."""

    def __init__(
        self,
        path: AnyPath,
        image_dir: AnyPath | Callable[[list[str]], AnyPath],
        guard: Guard,
        root: Path | None,
        split: str,
    ):
        self.path, self.image_dir, self.root, self.split = path, image_dir, root, split
        self.guard, self.report = guard, guard.report
        self.finder: ImageFinder | None = None  # of all images, once one is not at its place
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
        images = (_with_file_name(e) for e in content["images"] if isinstance(e, dict))
        files = [image.get("file_name") for image in images]
        self.file_names = [name for name in files if isinstance(name, str)]
        if callable(self.image_dir):
            self.image_dir = self.image_dir(self.file_names)
        images = self.read_images(content["images"])
        objects = collections.defaultdict(list)
        for place, entry in enumerate(entries):
            with self.guard:
                if (found := self.read_object(entry, place, images)) is not None:
                    objects[found[0]].append(found[1])
        whole = (im._replace(objects=tuple(objects[i])) for i, im in images.items())
        notes = () if self.finder is None else self.finder.notes
        return RawSplit(tuple(whole), tuple(names), tuple(ids), notes=tuple(notes))

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
        name = fields.text(_with_file_name(entry), "file_name", self.path, where)
        path, size = self.find_image(name, where), self.read_size(entry, where)
        return RawImage(name, path, self.path, (), where, size, id=image_id)

    def find_image(self, name: str, where: str) -> AnyPath:
        """The path of an image, which may be missing."""
        full = f"{self.path}: {where}"
        if self.root is None or not leads_out(name):
            check_name(name, self.path, where)
            path = find_image(self.image_dir, name, self.report, full, root=self.root)
            if self.root is None or path is not None:
                return path or self.image_dir / name
        if self.finder is None:
            places = [self.image_dir]
            self.finder = ImageFinder(self.root, self.split, places, lambda: self.file_names)
        elsewhere = self.finder.find(name, self.path, where)
        if not self.finder.exists(elsewhere):
            check_name(name, self.path, where)
            return self.image_dir / name
        return Path(elsewhere)

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
        marks = entry, entry.get("attributes")
        crowd = any(is_ignored(one, self.path, where) for one in marks)
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
        if entry.get(OUTLINE_FIELD) is not None:
            self.report.add(OUTLINE_BOX, f"{self.path}: {where}")
            return tuple(entry[OUTLINE_FIELD])
        box = tuple(fields.box(entry, self.path, where, self.report))
        if ROTATION_FIELD not in entry:
            return box
        self.report.add(ROTATED, f"{self.path}: {where}")
        return around_turned(box, entry[ROTATION_FIELD])


def _with_file_name(image: dict) -> dict:
    """The entry; LVIS has an address instead of file_name, which ends in train2017/NAME.jpg."""
    address = image.get("coco_url")
    if "file_name" in image or not isinstance(address, str):
        return image
    return image | {"file_name": "/".join(address.split("/")[-2:])}
