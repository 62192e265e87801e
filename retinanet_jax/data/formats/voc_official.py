"""Pascal VOC's files: image sets and the XML annotation of each image, read and checked."""

import dataclasses
import math
from xml.etree import ElementTree

from retinanet_jax.data import images as images_lib
from retinanet_jax.data.annotations.class_names import VOC_CATEGORIES
from retinanet_jax.data.archives import AnyPath
from retinanet_jax.data.data_errors import DataError, Guard, Report
from retinanet_jax.data.formats.voc_xml import parse_xml
from retinanet_jax.data.records import ImageRecord

POSES = ("frontal", "rear", "left", "right", "unspecified")


@dataclasses.dataclass(frozen=True)
class VocObject:
    """One object: `corners` are xmin, ymin, xmax, ymax as VOC counts them."""

    label: int
    corners: tuple[float, float, float, float]
    pose: str
    truncated: bool
    difficult: bool


def read_image_set(path: AnyPath, guard: Guard) -> dict[ImageRecord, list[VocObject]]:
    """Returns the images that VOCyear/ImageSets/Main/NAME.txt lists, with their objects.

    Raises:
      DataError: the list, an image or an annotation is missing or broken.
    """
    year_dir = path.parent.parent.parent
    try:
        names = [line.split()[0] for line in path.read_text("utf-8").splitlines() if line.split()]
    except (OSError, ValueError) as error:
        fix = "extract VOC's archives again"
        raise DataError("image set", path, "", str(error), fix) from error
    images, ids = {}, set()
    for name in names:
        with guard:
            image_id = _image_id(name, path)
            if image_id in ids:
                what = f"{name!r} is the second image with the number {image_id}"
                raise DataError("image id used twice", path, name, what, "list each image once")
            ids.add(image_id)
            image = year_dir / "JPEGImages" / f"{name}.jpg"
            size = images_lib.file_size(image)
            record = ImageRecord(image_id, f"{name}.jpg", image, *size)
            images[record] = read_objects(year_dir / "Annotations" / f"{name}.xml", size, guard)
    guard.finish(path)
    if not images:
        raise DataError("empty split", path, "", "has no usable image", "extract VOC again")
    return images


def read_objects(path: AnyPath, size: tuple[int, int], guard: Guard) -> list[VocObject]:
    """Returns the objects of one annotation file; `size` is the image's (height, width) in pixels.

    Missing `pose`, `truncated` or `difficult` are Unspecified, 0 and 0. A broken object is for
    `guard` to tell.

    Raises:
      DataError: the file is missing or not XML, or has a document type, whose entities could fill
        the memory.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        fix = "extract VOC's annotations again"
        raise DataError("annotation file", path, "", f"cannot be read ({error})", fix) from error
    root = parse_xml(data, path)
    stated = tuple(root.findtext(f"size/{side}", "").strip() for side in ("height", "width"))
    if stated != tuple(map(str, size)):
        guard.report.add("size disagrees, size of the file used", str(path))
    objects = []
    for place, element in enumerate(root.findall("object")):
        with guard:
            objects.append(_read_object(element, path, f"object[{place}]", size, guard.report))
    return objects


def _image_id(name: str, path: AnyPath) -> int:
    """The digits of an image's name, which is that of a file in JPEGImages."""
    digits = "".join(letter for letter in name if letter.isdecimal())
    if not digits or len(digits) > 18 or "/" in name or "\0" in name:
        what = f"{name!r} is not the name of an image"
        raise DataError("image set", path, name, what, "name images by number, such as 2008_000008")
    return int(digits)


def _read_object(
    element: ElementTree.Element, path: AnyPath, where: str, size: tuple[int, int], report: Report
) -> VocObject:
    name = element.findtext("name", "").strip().lower()
    if name not in VOC_CATEGORIES.names:
        fix = f"write one of {', '.join(VOC_CATEGORIES.names)}"
        raise DataError("unknown category", path, where, f"name is {name!r}", fix)
    pose = element.findtext("pose", "").strip().lower()
    return VocObject(
        VOC_CATEGORIES.names.index(name),
        _read_corners(element, path, where, size, report),
        pose if pose in POSES else "unspecified",
        _flag(element, "truncated", path, where),
        _flag(element, "difficult", path, where),
    )


def _flag(element: ElementTree.Element, name: str, path: AnyPath, where: str) -> bool:
    text = element.findtext(name, "").strip()
    if text not in ("", "0", "1"):
        raise DataError(name, path, where, f"{name} is {text!r}", "write 0 or 1")
    return text == "1"


def _read_corners(
    element: ElementTree.Element, path: AnyPath, where: str, size: tuple[int, int], report: Report
) -> tuple[float, float, float, float]:
    texts = [element.findtext(f"bndbox/{side}") for side in ("xmin", "ymin", "xmax", "ymax")]
    try:
        x1, y1, x2, y2 = (float(text) for text in texts)
    except (TypeError, ValueError):
        what = f"bndbox has xmin, ymin, xmax, ymax {texts}"
        raise DataError("bndbox", path, where, what, "write four numbers") from None
    inside = min(x2, size[1]) - max(x1 - 1, 0), min(y2, size[0]) - max(y1 - 1, 0)
    if (
        not all(math.isfinite(v) for v in (x1, y1, x2, y2))
        or min(inside) <= 0
        or x2 < x1
        or y2 < y1
    ):
        what = f"bndbox {texts} has no area inside the image of {size[1]} x {size[0]}"
        fix = "write xmin <= xmax and ymin <= ymax, in pixels from 1"
        raise DataError("box without area", path, where, what, fix)
    if min(x1, y1) < 0 or x2 > size[1] or y2 > size[0]:
        report.add("box partly outside, clipped", f"{path}: {where}")
    return x1, y1, x2, y2
