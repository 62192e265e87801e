"""Matches images to the frames of 'CVAT for video', whose file numbers frames without names.

CVAT saves the frames of a video as images/frame_000000.PNG, those of a project in images/<subset>.
The images of an image task keep their names. Sorted by name, they are in the order in which CVAT
numbers them by default.
"""

import os
import re
import shlex
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

from retinanet_jax.data.annotations import annotation_fields as fields
from retinanet_jax.data.annotations.folder_files import list_folder, stem_of, subfolder, walk
from retinanet_jax.data.data_errors import DataError
from retinanet_jax.data.video import VIDEO_SUFFIXES

MAX_FRAMES = 10**8
_TASKS = ("meta/task", "meta/job", "meta/project/tasks/task")
_IMAGE_TASK = "annotation"  # its mode; that of a video is interpolation
_AS_IMAGES = "export the task as 'CVAT for images 1.1', with images"


class Task(NamedTuple):
    """A task or job as the file describes it: its kind, its frame numbers and the frame size."""

    is_video: bool
    frames: range | None
    size: tuple[int, int] | None
    subset: str


class Frames(NamedTuple):
    """The images of a subset by the number of their frame, as seen from the annotation file.

    in_order: whether they were numbered by the order of their names.
    size: (height, width) of all frames, where the file states one.
    """

    images: dict[int, str]
    in_order: bool
    size: tuple[int, int] | None

    def name(self, number: int) -> str:
        """Returns the image of a frame, or what it would be called."""
        one = next(iter(self.images.values()))
        missing = f"frame_{number:06d}{os.path.splitext(one)[1]}"
        return self.images.get(number) or os.path.join(os.path.dirname(one), missing)


def tasks_of(root: ElementTree.Element) -> list[Task]:
    """Returns the tasks that a file states, or its job."""
    size = _size(root.find("meta/original_size"))
    return [_task(task, size) for place in _TASKS for task in root.findall(place)]


def find_frames(root: ElementTree.Element, path: Path, subset: str | None) -> Frames:
    """Returns the frames of a subset.

    Raises:
      DataError: the images are missing, or it is unclear which frames they are.
    """
    tasks = tasks_of(root)
    own = [task for task in tasks if task.subset == subset] or tasks
    images = _images(path, subset)
    if not images:
        raise _without_images(root, path)
    by_number = _by_number(images, own)
    found = by_number or _in_order(images, own, path)
    seen = {n: os.path.relpath(name, path.parent).replace(os.sep, "/") for n, name in found.items()}
    sizes = {task.size for task in own}
    return Frames(seen, not by_number, sizes.pop() if len(sizes) == 1 else None)


def _task(task: ElementTree.Element, size: tuple[int, int] | None) -> Task:
    start, stop = (fields.as_integer(task.findtext(f"{end}_frame")) for end in ("start", "stop"))
    step = re.fullmatch(r"\s*step\s*=\s*([1-9]\d{0,5})\s*", task.findtext("frame_filter") or "")
    known = start is not None and stop is not None and 0 <= start <= stop < MAX_FRAMES
    frames = range(start, stop + 1, int(step[1]) if step else 1) if known else None
    mode, subset = task.findtext("mode", "").strip(), task.findtext("subset", "").strip()
    own_size = _size(task.find("original_size")) or size
    return Task(mode != _IMAGE_TASK, frames, own_size, subset)


def _size(stated: ElementTree.Element | None) -> tuple[int, int] | None:
    if stated is None:
        return None
    return fields.size(stated.findtext("height"), stated.findtext("width"))


def _images(path: Path, subset: str | None) -> list[str]:
    """The images of a subset as seen from the file: in images/, beside it or its folder."""
    beside, around = path.parent, path.parent.parent
    inner = [subset] if subset else [stem_of(path.name), beside.name]
    found = _images_in(beside, inner) or _below(beside)
    return found or (_images_in(around, inner) if subfolder(around, "images") else [])


def _images_in(folder: Path, inner: list[str]) -> list[str]:
    images = subfolder(folder, "images")
    places = (images and subfolder(images, *inner), images, subfolder(folder, *inner))
    return next(filter(None, map(_below, places)), [])


def _below(folder: Path | None) -> list[str]:
    """The paths of the images below a folder."""
    listings = walk(folder) if folder is not None else ()
    return [os.path.join(at.path, name) for at in listings for name in at.images()]


def _by_number(images: list[str], tasks: list[Task]) -> dict[int, str] | None:
    """The images by the number of their frame; None where their names do not tell it.

    CVAT's names do. Other numbers do if they begin with the first frame: from 1, each may be that
    of the frame before.
    """
    if not all(task.is_video for task in tasks):
        return None
    named = [
        name for name in images if re.fullmatch(r"frame_\d{6,8}", stem_of(os.path.basename(name)))
    ]
    numbers = _numbers(named or images)
    if not numbers:
        return None
    frames = tasks[0].frames if len(tasks) == 1 else None
    begins = min(numbers) in (0, frames.start if frames else 0)
    fits = bool(named) and (frames is None or all(number in frames for number in numbers))
    if not begins and not fits:
        return None
    return {n: name for n, name in numbers.items() if frames is None or n in frames}


def _numbers(names: list[str]) -> dict[int, str]:
    """The names by the number at their end; none unless they only differ in it."""
    found = [re.fullmatch(r"(.*?)(\d{1,8})", stem_of(name), re.DOTALL) for name in names]
    if not all(found) or len({match[1] for match in found}) != 1:
        return {}
    numbers = {int(match[2]): name for match, name in zip(found, names, strict=True)}
    return numbers if len(numbers) == len(names) else {}


def _in_order(images: list[str], tasks: list[Task], path: Path) -> dict[int, str]:
    """The images in the order of their names, if there is one for each frame."""
    frames = tasks[0].frames if len(tasks) == 1 else None
    ordered = sorted(images)
    is_clear = ordered == sorted(images, key=_natural)
    if frames is not None and len(frames) == len(images) and is_clear:
        return dict(zip(frames, ordered, strict=True))
    number = f"{len(frames)} frames" if frames is not None else "its frames"
    what = f"frames are numbered, and the frame of {os.path.basename(images[0])} is not clear"
    what += f": there are {len(images)} images for {number}" if is_clear else ""
    names = "name the images frame_000000.jpg, frame_000001.jpg, ... by frame number"
    fix = f"{names}, from 0, or {_AS_IMAGES}" if all(t.is_video for t in tasks) else _AS_IMAGES
    raise DataError("frames", path, "", what, fix)


def _natural(name: str) -> list[tuple[int, str]]:
    """A key for the order in which 9 is before 10."""
    parts = re.split(r"(\d+)", name)
    return [(int(part), "") if place % 2 else (0, part) for place, part in enumerate(parts)]


def _without_images(root: ElementTree.Element, path: Path) -> DataError:
    folders = (path.parent, path.parent.parent)
    videos = [name for f in folders for name in list_folder(f).with_suffix(*VIDEO_SUFFIXES)]
    video = (videos or [root.findtext("meta/task/source") or "VIDEO"])[0]
    quoted = shlex.quote(video)
    what = "the images of its frames are missing"
    what += f", and videos, such as {video}, are not read" if videos else ""
    fix = "export the task again with 'Save images', or write all frames as images/frame_000000.png"
    fix += f", ...: ffmpeg -i {quoted} -fps_mode passthrough -start_number 0 images/frame_%06d.png"
    return DataError("missing images", path, "", what, fix)
