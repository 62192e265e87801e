"""German Traffic Sign Detection Benchmark (GTSDB): gt.txt beside the images 00000.ppm and so on.

A line is `00000.ppm;774;411;815;446;11`: the image, the left and right columns and upper and lower
rows of a sign in the order left, top, right, bottom, and the number of its class, as the release's
ReadMe.txt has them. The columns and rows belong to the sign, so its width is right - left + 1. The
file lists the signs of all images; an image that it does not name has none. Images in the folders
00 to 42 are cut-outs of signs, and are not used.
"""

import re
from pathlib import Path

from retinanet_jax.data.annotations import annotation_fields as fields
from retinanet_jax.data.annotations.folder_files import ascii_head, list_folder, read_lines, stem_of
from retinanet_jax.data.annotations.outlines import Box
from retinanet_jax.data.annotations.raw import Layout
from retinanet_jax.data.annotations.split_content import (
    Content,
    ImageEntry,
    Region,
    SplitFileFormat,
)
from retinanet_jax.data.annotations.split_files import find_layout_of
from retinanet_jax.data.data_errors import DataError, Guard

CLASSES = (
    *("speed limit 20", "speed limit 30", "speed limit 50", "speed limit 60", "speed limit 70"),
    *("speed limit 80", "restriction ends 80", "speed limit 100", "speed limit 120"),
    *("no overtaking", "no overtaking (trucks)", "priority at next intersection"),
    *("priority road", "give way", "stop", "no traffic both ways", "no trucks", "no entry"),
    *("danger", "bend left", "bend right", "bend", "uneven road", "slippery road"),
    *("road narrows", "construction", "traffic signal", "pedestrian crossing", "school crossing"),
    *("cycles crossing", "snow", "animals", "restriction ends", "go right", "go left"),
    *("go straight", "go right or straight", "go left or straight", "keep right", "keep left"),
    *("roundabout", "restriction ends (overtaking)", "restriction ends (overtaking (trucks))"),
)
# The (height, width) of all images: a cut-out of the same name has another one.
_SIZE = 800, 1360
_NAME = re.compile(r"\d{5}")
_LINE = re.compile(rb"\s*\d{5}\.ppm(;\d+){5}\s*", re.IGNORECASE)
_HEAD = 1 << 10


def find(root: Path) -> Layout | None:
    """Returns the layout of gt.txt in a folder and its split folders, or of the file.

    Raises:
      DataError: several files fit, and it is unclear which one is meant.
    """
    return find_layout_of(_GTSDB, root)


def _is_gtsdb(path: Path) -> bool:
    lines = ascii_head(path, _HEAD).removeprefix(b"\xef\xbb\xbf").splitlines()
    return path.name.lower() == "gt.txt" and any(_LINE.fullmatch(line) for line in lines[:3])


def _parse(path: Path, guard: Guard) -> Content:
    signs: dict[str, list[Region]] = {}
    for number, line in read_lines(path):
        with guard:
            where = f"line {number}"
            name, *words = [word.strip() for word in line.split(";")]
            numbers = [fields.as_integer(word) for word in words]
            if not name or len(numbers) != 5 or None in numbers:
                fix = "write an image; left; top; right; bottom; the number of its class"
                what = f"is {fields.short(line.strip())}"
                raise DataError("line", path, where, what, fix)
            *corners, label = numbers
            if not 0 <= label < len(CLASSES):
                what, fix = f"has the class {label}", f"write 0 to {len(CLASSES) - 1}"
                raise DataError("unknown class", path, where, what, fix)
            regions = signs.setdefault(name, [])
            regions.append(Region(where, CLASSES[label], tuple(map(float, corners))))
    # Images converted to another format are found, too, before cut-outs with the stated name.
    beside = {stem_of(name): name for name in list_folder(path.parent).images()}
    for stem in filter(_NAME.fullmatch, beside.keys() - set(map(stem_of, signs))):
        signs[beside[stem]] = []
    entries = []
    for name, regions in sorted(signs.items()):
        names = [beside.get(stem_of(name), name), stem_of(name)]
        entries.append(ImageEntry(names, f"image {fields.short(name)}", regions, _SIZE))
    return Content(entries, CLASSES)


def _box(shape: tuple[float, ...], path: Path, where: str, found: set[str]) -> Box:
    left, top, right, bottom = shape
    return left, top, right - left + 1, bottom - top + 1


_GTSDB = SplitFileFormat("gtsdb", "GTSDB", (".txt",), _is_gtsdb, _parse, _box)
