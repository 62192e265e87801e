"""Holds out training images by a hash of their names, for folders without a validation split."""

import collections
import hashlib
import re
from collections.abc import Collection, Sequence
from pathlib import PurePosixPath

# Roboflow writes each version of an image as NAME_jpg.rf.HASH.jpg.
_ROBOFLOW = re.compile(r"\.rf\.[0-9A-Za-z]+$")
_FORMER_SUFFIX = re.compile(r"[_-](jpe?g|png|bmp|webp|tiff?)$", re.IGNORECASE)
_FRAME = re.compile(
    r"^(?P<video>.*?)[ ._-]*(?P<word>frame|img|image)?[ ._-]*(?P<number>\d{2,})$", re.IGNORECASE
)
# A numbering of more than this share of the images is a camera's, not that of one video; if its
# names say that it is one (frame_000123, img1/000123), it is divided into runs of frames.
_LARGEST_SHARE = 1 / 3
_RUNS = 10  # of a video, at least
_HASH_BYTES = 8


def source_of(file_name: str) -> str:
    """Returns the name of the image that a file was made from: without Roboflow's '.rf.HASH'."""
    stem = PurePosixPath(file_name).stem
    if not _ROBOFLOW.search(stem):
        return stem
    return _FORMER_SUFFIX.sub("", _ROBOFLOW.sub("", stem))


def video_of(file_name: str) -> str:
    """Returns the name of a numbered frame without its number; the whole stem of other names.

    Frames that are numbers alone belong to the video of their folder.
    """
    source = source_of(file_name)
    match = _FRAME.match(source)
    if not match:
        return source
    folder = PurePosixPath(file_name).parent
    return match["video"] or f"{(folder.parent if _is_sequence(file_name) else folder).name}/"


def _is_sequence(file_name: str) -> bool:
    """Whether an image is a frame of a sequence of MOTChallenge: SEQUENCE/img1/000001.jpg."""
    return PurePosixPath(file_name).parent.name == "img1"


def held_out(file_names: Sequence[str], share: float) -> list[bool]:
    """Returns which images are held out: about `share` of them, chosen by a hash of their names.

    The hash is the same on every machine, and an image stays where it is when others are added.
    Versions of one image and numbered frames of one video (a numbering of at most a third of all
    images) are kept together; of a longer video, `_runs` of its frames. At least one image and at
    most half of them are held out.
    """
    videos = [video_of(name) for name in file_names]
    sizes = collections.Counter(videos)
    limit = max(1, len(file_names) * _LARGEST_SHARE)
    long = [name for video, name in zip(videos, file_names, strict=True) if sizes[video] > limit]
    runs = _runs(long)
    groups = [
        video if sizes[video] <= limit else runs.get(name, source_of(name))
        for video, name in zip(videos, file_names, strict=True)
    ]
    counts = collections.Counter(groups)
    places = {group: _place(group) for group in counts} | _places_of_runs(set(runs.values()))
    ordered = sorted(counts, key=lambda group: (places[group], group))
    below = [group for group in ordered if places[group] < share] or ordered[:1]
    chosen, total = set(), 0
    for group in below:
        if total and total + counts[group] > len(file_names) / 2:
            break
        chosen.add(group)
        total += counts[group]
    return [group in chosen for group in groups]


def _runs(file_names: Sequence[str]) -> dict[str, str]:
    """For frames by name, the run of consecutive frames of their video.

    Neighbours look alike: apart, one would be trained on and the other evaluated. The length is a
    power of two, so that it seldom changes when frames are added.
    """
    by_video: dict[str, dict[str, int]] = collections.defaultdict(dict)
    for name in file_names:
        match = _FRAME.match(source_of(name))
        if match and ((match["word"] or "").lower() == "frame" or _is_sequence(name)):
            by_video[video_of(name)][name] = int(match["number"])
    runs = {}
    for video, numbers in by_video.items():
        span = max(numbers.values()) - min(numbers.values()) + 1
        length = 1 << max(0, (span // _RUNS).bit_length() - 1)
        runs |= {name: f"{video} {number // length}" for name, number in numbers.items()}
    return runs


def _places_of_runs(runs: Collection[str]) -> dict[str, float]:
    """Evenly spread places, as there are few runs; a hash decides their order in each video."""
    by_video: dict[str, list[str]] = collections.defaultdict(list)
    for run in sorted(runs, key=lambda run: (_place(run), run)):
        by_video[run.rpartition(" ")[0]].append(run)
    return {
        run: (rank + 0.5) / len(found)
        for found in by_video.values()
        for rank, run in enumerate(found)
    }


def _place(group: str) -> float:
    """A number in [0, 1) that only depends on a name."""
    digest = hashlib.blake2b(group.encode("utf-8", "surrogateescape"), digest_size=_HASH_BYTES)
    return int.from_bytes(digest.digest()) / 256**_HASH_BYTES
