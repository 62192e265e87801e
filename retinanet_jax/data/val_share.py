"""Holds out training images by a hash of their names, for folders without a validation split."""

import collections
import hashlib
import re
from collections.abc import Sequence
from pathlib import PurePosixPath

# Roboflow writes each version of an image as NAME_jpg.rf.HASH.jpg.
_ROBOFLOW = re.compile(r"\.rf\.[0-9A-Za-z]+$")
_FORMER_SUFFIX = re.compile(r"[_-](jpe?g|png|bmp|webp|tiff?)$", re.IGNORECASE)
_FRAME = re.compile(r"^(?P<video>.*?)[ ._-]*(frame|img|image)?[ ._-]*\d{2,}$", re.IGNORECASE)
# A numbering of more than this share of the images is a camera's, not that of one video.
_LARGEST_SHARE = 1 / 3
_HASH_BYTES = 8


def source_of(file_name: str) -> str:
    """The name of the image that a file was made from: without Roboflow's '.rf.HASH'."""
    stem = PurePosixPath(file_name).stem
    if not _ROBOFLOW.search(stem):
        return stem
    return _FORMER_SUFFIX.sub("", _ROBOFLOW.sub("", stem))


def video_of(file_name: str) -> str:
    """The name of a numbered frame without its number; the whole stem of other names.

    Frames that are numbers alone belong to the video of their folder.
    """
    source = source_of(file_name)
    match = _FRAME.match(source)
    if not match:
        return source
    return match["video"] or f"{PurePosixPath(file_name).parent.name}/"


def held_out(file_names: Sequence[str], share: float) -> list[bool]:
    """Which images are for validation: about `share` of them, decided by a hash of their names.

    The hash is the same on every machine, and an image stays where it is when others are added.
    Versions of one image and numbered frames of one video (a numbering of at most a third of all
    images) are kept together. At least one image and at most half of them are held out.
    """
    videos = [video_of(name) for name in file_names]
    sizes = collections.Counter(videos)
    limit = max(1, len(file_names) * _LARGEST_SHARE)
    groups = [
        video if sizes[video] <= limit else source_of(name)
        for video, name in zip(videos, file_names, strict=True)
    ]
    counts = collections.Counter(groups)
    ordered = sorted(counts, key=lambda group: (_place(group), group))
    below = [group for group in ordered if _place(group) < share] or ordered[:1]
    chosen, total = set(), 0
    for group in below:
        if total and total + counts[group] > len(file_names) / 2:
            break
        chosen.add(group)
        total += counts[group]
    return [group in chosen for group in groups]


def _place(group: str) -> float:
    """A number in [0, 1) that only depends on a name."""
    digest = hashlib.blake2b(group.encode("utf-8", "surrogateescape"), digest_size=_HASH_BYTES)
    return int.from_bytes(digest.digest()) / 256**_HASH_BYTES
