"""CVAT's XML of tracks, 'CVAT for video 1.1': the shapes of each <track> by the number of a frame.

CVAT writes a shape for each frame, including interpolated ones. Shapes with outside="1" are not
visible in their frame.
"""

import bisect
import itertools
from collections.abc import Collection, Sequence
from pathlib import Path
from xml.etree import ElementTree

from retinanet_jax.data.annotations.annotation_fields import as_integer, is_true, short
from retinanet_jax.data.annotations.ignore_marks import is_ignored
from retinanet_jax.data.annotations.split_content import ImageEntry, Region
from retinanet_jax.data.data_errors import DataError, Guard
from retinanet_jax.data.formats.cvat_frames import MAX_FRAMES, find_frames, tasks_of

IN_ORDER = "frames without names in the file, images used in the order of their names"
DEFAULT = "default"  # the split of tracks without one


def has_tracks(root: ElementTree.Element) -> bool:
    """Returns whether a file is 'CVAT for video'; a video without any object has no track."""
    if root.find("image") is not None:
        return False
    return root.find("track") is not None or any(task.is_video for task in tasks_of(root))


def read_tracks(
    root: ElementTree.Element, path: Path, tags: Collection[str], guard: Guard
) -> tuple[list[ImageEntry], tuple[tuple[str, str], ...]]:
    """Returns the frames, with those of the images that show no object, and notes.

    Args:
      tags: tags of the shapes to read.

    Raises:
      DataError: see cvat_frames.find_frames.
    """
    entries, notes = [], []
    for subset, tracks in _subsets(root).items():
        frames = find_frames(root, path, subset)
        if frames.in_order:
            notes.append((IN_ORDER, str(path)))
        regions: dict[int, list[Region]] = {number: [] for number in frames.images}
        numbers = sorted(frames.images)
        for track in tracks:
            shapes = _shapes(track, path, tags, guard)
            with guard:
                _check_gaps(shapes, numbers, path, f"track {track.get('id')}")
            for number, shape in shapes.items():
                if not _is_outside(shape):
                    with guard:
                        region = region_of(shape, _where(track, shape), track.get("label"), path)
                        regions.setdefault(number, []).append(region)
        for number, found in sorted(regions.items()):
            name, where = frames.name(number), f"frame {number}"
            entries.append(ImageEntry([name], where, found, frames.size, subset))
    return entries, tuple(notes)


def _subsets(root: ElementTree.Element) -> dict[str | None, list[ElementTree.Element]]:
    """The tracks by subset; one subset, None, where the file has none."""
    tracks = root.findall("track")
    if not any(track.get("subset") for track in tracks):
        return {None: tracks}
    subsets: dict[str | None, list[ElementTree.Element]] = {}
    for track in tracks:
        subsets.setdefault(track.get("subset") or DEFAULT, []).append(track)
    return subsets


def region_of(shape: ElementTree.Element, where: str, label: str | None, path: Path) -> Region:
    """Returns a shape with its label; its attributes may mark it as ignored."""
    attributes = {a.get("name", ""): a.text for a in shape.findall("attribute")}
    return Region(where, label, shape, is_ignored(attributes, path, where))


def _shapes(
    track: ElementTree.Element, path: Path, tags: Collection[str], guard: Guard
) -> dict[int, ElementTree.Element]:
    """The shapes of a track by frame, also those that are outside."""
    shapes = {}
    for shape in track:
        if shape.tag in tags:
            with guard:
                number = as_integer(shape.get("frame"))
                if number is None or not 0 <= number < MAX_FRAMES:
                    where, what = _where(track, shape), f"frame is {short(shape.get('frame'))}"
                    raise DataError("frame", path, where, what, "write the number of the frame")
                if number in shapes:
                    where, what = _where(track, shape), f"is the second shape for frame {number}"
                    raise DataError("frame", path, where, what, "delete one of the two")
                shapes[number] = shape
    return shapes


def _check_gaps(
    shapes: dict[int, ElementTree.Element], images: Sequence[int], path: Path, where: str
) -> None:
    """Raises DataError for an image between two shapes of a track; `images` are sorted numbers."""
    for before, after in itertools.pairwise(sorted(shapes)):
        lost = images[bisect.bisect_right(images, before) : bisect.bisect_left(images, after)]
        # Of a skeleton, CVAT leaves out the frames that show none of its points.
        if lost and shapes[before].tag != "skeleton" and not _is_outside(shapes[before]):
            what = f"has shapes for frames {before} and {after} but none for frame {lost[0]}"
            fix = "export it with CVAT, which writes a shape for each frame, or delete these images"
            raise DataError("track", path, where, what, fix)


def _is_outside(shape: ElementTree.Element) -> bool:
    return is_true(shape.get("outside"))


def _where(track: ElementTree.Element, shape: ElementTree.Element) -> str:
    return f"track {track.get('id')}: {shape.tag}"
