"""Checks annotations as read and turns them into records, in the same way for all layouts."""

from collections.abc import Callable, Iterable
from typing import NamedTuple

from tqdm import tqdm

from retinanet_jax.data.annotations.check_boxes import (
    LIKE_CORNERS,
    check_box,
    fits,
    has_size_of_image,
    in_shares,
    is_share,
    looks_like_corners,
    pixel_box,
    share_error,
    size_error,
)
from retinanet_jax.data.annotations.file_names import explain_missing
from retinanet_jax.data.annotations.raw import EVERY_CLASS, RawImage, RawObject, RawSplit
from retinanet_jax.data.archives import AnyPath
from retinanet_jax.data.data_errors import DataError, Guard
from retinanet_jax.data.images import turned_size
from retinanet_jax.data.records import Annotation, Categories, ImageRecord

TURNED = "EXIF orientation applied: the image is read as viewers show it"
NOT_TURNED = "EXIF orientation ignored: the boxes fit the image as stored"
REPEATED = "box of the same class twice in an image, kept twice"
SKIPPED_OBJECT = "object of a skipped image"


class ImageFacts(NamedTuple):
    """Size, orientation and peculiarities of an image file.

    size: (height, width) in pixels as stored.
    orientation: EXIF orientation, 1 .. 8.
    changes: what decoding changes, for the report: 'animated, the first image used'.
    """

    size: tuple[int, int]
    orientation: int = 1
    changes: tuple[str, ...] = ()


def check_split(
    raw: RawSplit,
    facts: Callable[[RawImage], ImageFacts],
    categories: Categories,
    guard: Guard,
    *,
    path: AnyPath,
    exif: str,
) -> list[ImageRecord]:
    """Returns the valid images of a split in the order of `raw`, with their valid objects.

    A box partly outside its image is kept (clipped for training) and counted; a box without any
    area inside is an error. Images and objects without an id are numbered by file name.

    Args:
      raw: the split as read.
      facts: returns the facts of an image file; raises DataError if it is missing or undecodable.
      categories: see join_categories; has all classes of `raw`.
      guard: collects errors and contains the report.
      path: the annotation file or folder, for messages.
      exif: whether boxes refer to images as 'stored' or as 'shown' with their EXIF orientation;
        'auto' decides for each image, see `orientation_of`.

    Raises:
      DataError: `guard` is strict and there were errors; or no image is left.
    """
    for reason, where in raw.notes:
        guard.report.add(reason, where)
    images = _numbered(raw.images)
    labels = {name: label for label, name in enumerate(categories.names)}
    checker = _Checker(facts, labels, categories, guard, exif)
    checker.in_shares, checker.next_id = in_shares(raw), _next_object_id(images)
    checker.form = raw.box_form
    records = []
    # The facts of 100,000 files of a folder or an archive take a while.
    for image in tqdm(images, "reading image sizes", delay=2, leave=False, disable=None):
        before = len(records)
        with guard:
            records.append(checker.check_image(image))
        if len(records) == before:
            for found in image.objects:
                where = f"{image.annotation_file}: {_where(image, found)}"
                guard.report.add(SKIPPED_OBJECT, where)
    guard.finish(path)
    if not records:
        what = f"none of {len(images)} images can be used" if images else "has no image"
        summary = guard.report.summary().replace("\n", "; ")
        fix = "check data.root and the split" + (f" ({summary})" if summary else "")
        raise DataError("empty split", path, "images", what, fix)
    if 2 * checker.of_image_size > checker.boxes:
        file = images[0].annotation_file
        raise size_error(checker.of_image_size, checker.boxes, file)
    if checker.like_corners > max(2, checker.boxes / 2):
        guard.report.add(LIKE_CORNERS, str(path))
    return records


def _numbered(images: Iterable[RawImage]) -> list[RawImage]:
    """The images in the same order, those without an id numbered by file name."""
    images = list(images)
    free = max((image.id for image in images if image.id is not None), default=0) + 1
    without = sorted(
        (place for place, image in enumerate(images) if image.id is None),
        key=lambda place: images[place].file_name,
    )
    for number, place in enumerate(without, free):
        images[place] = images[place]._replace(id=number)
    return images


def _next_object_id(images: Iterable[RawImage]) -> int:
    return max((o.id for image in images for o in image.objects if o.id is not None), default=0) + 1


class _Checker:
    """State of one check: what was seen, and counts over all boxes."""

    def __init__(
        self,
        facts: Callable[[RawImage], ImageFacts],
        labels: dict[str, int],
        categories: Categories,
        guard: Guard,
        exif: str,
    ):
        self.facts, self.labels, self.categories = facts, labels, categories
        self.guard, self.report, self.exif = guard, guard.report, exif
        self.next_id, self.in_shares, self.form = 1, False, "size"
        self.files: set[AnyPath] = set()
        self.boxes = self.like_corners = self.of_image_size = 0

    def check_image(self, image: RawImage) -> ImageRecord:
        size, orientation = self.reading(image, self.check_file(image))
        objects, seen = [], set()
        for found in image.objects:
            with self.guard:
                objects += self.check_object(image, found, size)
                if (key := (found.class_name, found.box)) in seen:
                    where = f"{image.annotation_file}: {_where(image, found)}"
                    self.report.add(REPEATED, where)
                seen.add(key)
        return ImageRecord(
            image.id, image.file_name, image.path, *size, tuple(objects), orientation
        )

    def check_file(self, image: RawImage) -> ImageFacts:
        if image.path in self.files:
            what, fix = f"file {image.file_name!r} is used twice", "list each file once"
            raise DataError("image file used twice", image.annotation_file, image.where, what, fix)
        self.files.add(image.path)
        try:
            facts = self.facts(image)
        except DataError as error:
            where, what, fix = image.where, f"{error.where}: {error.what}", error.fix
            if error.reason == "missing image":
                fix = "put the file there, leave the image out, or fix data.root"
                fix = explain_missing(image.path) or fix
            raise DataError(error.reason, image.annotation_file, where, what, fix) from error
        for change in facts.changes:
            self.report.add(change, str(image.path))
        return facts

    def reading(self, image: RawImage, facts: ImageFacts) -> tuple[tuple[int, int], int]:
        """(height, width), and the orientation by which the pixels are turned."""
        orientation = orientation_of(image, facts, self.exif)
        size = turned_size(facts.size, orientation)
        # An annotated size may be that of the stored image although the boxes are not.
        allowed = {None, size} if self.exif == "stored" else {None, size, facts.size}
        if image.size not in allowed:
            what, fix = _disagreement(image, facts)
            where = image.annotation_file, image.where
            raise DataError("image size disagrees", *where, what, fix)
        if facts.orientation != 1 and self.exif == "auto":
            self.report.add(NOT_TURNED if orientation == 1 else TURNED, str(image.path))
        return size, orientation

    def check_object(
        self, image: RawImage, found: RawObject, size: tuple[int, int]
    ) -> list[Annotation]:
        """The annotation of an object; of a region of every class, one for each class."""
        path, where = image.annotation_file, _where(image, found)
        if self.in_shares and not image.normalized and is_share(image, found):
            raise share_error(found.box, self.form, path, where)
        box = pixel_box(found.box, size) if image.normalized else found.box
        outside = check_box(box, size, path, where, self.form, image.normalized)
        self.boxes += 1
        if outside:
            self.of_image_size += has_size_of_image(box, size)
            self.like_corners += self.form != "corners" and looks_like_corners(box, size)
            self.report.add("box partly outside, clipped", f"{path}: {where}")
        area = box[2] * box[3] if found.area is None else found.area
        of_all = found.class_name == EVERY_CLASS
        labels = self.labels.values() if of_all else [self.labels[found.class_name]]
        ids = [self.number(found) for _ in labels]
        return [
            Annotation(number, label, self.categories.ids[label], box, area, found.crowd)
            for number, label in zip(ids, labels, strict=True)
        ]

    def number(self, found: RawObject) -> int:
        """The id of an object as annotated, else the next one that is free."""
        if found.id is not None:
            return found.id
        self.next_id += 1
        return self.next_id - 1


def orientation_of(image: RawImage, facts: ImageFacts, exif: str) -> int:
    """Returns the orientation by which the pixels are turned so that the boxes fit them.

    Tools that run in a browser draw boxes on the image as shown, others on the stored one. 'auto'
    selects the reading that fits the annotated size. If both fit (turned by 180 degrees, mirrored,
    square, or no size annotated), the image is used as shown. An annotated size that fits the
    stored image alone is overruled by boxes that fit the image as shown alone, and a missing one
    by boxes that fit the stored image alone.
    """
    if facts.orientation == 1 or exif == "stored":
        return 1
    if exif == "shown":
        return facts.orientation
    shown = turned_size(facts.size, facts.orientation)
    if shown == facts.size:
        return facts.orientation
    in_stored, in_shown = fits(image, facts.size), fits(image, shown)
    if image.size == facts.size:
        return facts.orientation if in_shown and not in_stored else 1
    if image.size is None and in_stored and not in_shown:
        return 1
    return facts.orientation


def _disagreement(image: RawImage, facts: ImageFacts) -> tuple[str, str]:
    """What to report of an image whose size is not the annotated one."""
    (height, width), (h, w) = image.size, facts.size
    what = f"height x width is {height} x {width}, but {image.path} has {h} x {w}"
    if facts.orientation != 1:
        what += f" and EXIF orientation {facts.orientation}"
    if image.size != facts.size[::-1]:
        return what, "write the size of the file, and boxes that belong to it"
    if facts.orientation != 1:
        return what, "set data.exif=auto, or rotate the pixels in the file (mogrify -auto-orient)"
    return what, "swap height and width, and check that the boxes belong to this image"


def _where(image: RawImage, found: RawObject) -> str:
    entry = found.where or f"annotation id {found.id}"
    # Entries of a file about one image are counted in it; ids are unique in the whole file.
    return f"{image.where}: {entry}" if image.where and found.id is None else entry
