"""MOTChallenge: a folder for each sequence, with gt/gt.txt, img1/000001.jpg and seqinfo.ini.

Sequences are in the folder itself or in train/, val/ and test/. Those without gt/gt.txt, as in
MOT17's test/, are left out. MOT17 has each sequence for three detectors (-DPM, -FRCNN, -SDP), with
the same images and objects: one of the three is read. A frame without a line is an image without
objects. CVAT's export 'MOT 1.1' is one sequence, with the names of its classes in gt/labels.txt.
"""

import configparser
import functools
import itertools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from retinanet_jax.data.annotations import annotation_fields as fields
from retinanet_jax.data.annotations.class_lists import read_class_names
from retinanet_jax.data.annotations.folder_files import (
    list_folder,
    read_text,
    relative_name,
    stem_of,
    suffix_of,
)
from retinanet_jax.data.annotations.raw import Layout, RawImage, RawSplit
from retinanet_jax.data.annotations.split_names import is_split_name
from retinanet_jax.data.data_errors import DataError, Guard
from retinanet_jax.data.formats.mot_lines import objects_by_frame

OTHER_DETECTORS = "sequences with the images of another one (DPM, FRCNN, SDP), left out"
NO_GT = "sequences without gt/gt.txt, left out"
_GT, _LABELS, _INFO, _IMAGES = "gt/gt.txt", "gt/labels.txt", "seqinfo.ini", "img1"
_DETECTOR = re.compile(r"(.+)-(DPM|FRCNN|SDP)")
# CVAT's names of the frames of a video.
_FRAME = re.compile(r"frame_(\d+)")
_JUDGED = 50  # folders by which a folder is recognized


class _Info(NamedTuple):
    """What seqinfo.ini states: the folder and suffix of the images, and their (height, width)."""

    images: Path
    suffix: str = ""
    size: tuple[int, int] | None = None


def find(root: Path) -> Layout | None:
    """Returns the layout of a sequence, or of a folder of sequences, perhaps in split folders."""
    found = {n: _sequences(root / n) for n in list_folder(root).folders if is_split_name(n)}
    splits = {name: sequences for name, sequences in found.items() if _has_gt(sequences)}
    if not splits:
        sequences = _sequences(root)
        splits = {"train": sequences} if _has_gt(sequences) else {}
    if not splits:
        return None
    chosen = {name: _chosen(sequences) for name, sequences in splits.items()}
    read = functools.partial(_read_split, root, splits, chosen)
    folders = tuple(itertools.chain(*chosen.values()))
    unlabelled = tuple(name for name, some in found.items() if some and name not in splits)
    is_cvat = all((folder / _LABELS).is_file() for folder in folders)
    tool = "MOT 1.1 as exported by CVAT" if is_cvat else "MOTChallenge sequences"
    return Layout("mot", tool, tuple(splits), read, folders, unlabelled, suffixes=(".ini",))


def _sequences(folder: Path) -> list[Path]:
    """A folder with gt/gt.txt, or those in it with gt/gt.txt or img1/; none if few have these."""
    if (folder / _GT).is_file():
        return [folder]
    inner = [folder / name for name in list_folder(folder).folders]
    if not any(map(_is_sequence, inner[:_JUDGED])):
        return []
    return [path for path in inner if _is_sequence(path)]


def _is_sequence(folder: Path) -> bool:
    return (folder / _GT).is_file() or (folder / _IMAGES).is_dir()


def _has_gt(sequences: Sequence[Path]) -> bool:
    return any((sequence / _GT).is_file() for sequence in sequences)


def _chosen(sequences: Sequence[Path]) -> list[Path]:
    """The sequences to read: of those for several detectors the first one with images."""
    chosen: dict[str, Path] = {}
    for sequence in (one for one in sequences if (one / _GT).is_file()):
        match = _DETECTOR.fullmatch(sequence.name)
        name = match[1] if match else sequence.name
        if name not in chosen or not list_folder(chosen[name] / _IMAGES).images():
            chosen[name] = sequence
    return list(chosen.values())


def _read_split(
    root: Path,
    splits: dict[str, list[Path]],
    chosen: dict[str, list[Path]],
    split: str,
    guard: Guard,
) -> RawSplit:
    """The images of a split with their objects; see raw.Layout."""
    images: list[RawImage] = []
    notes: list[tuple[str, str]] = []
    listed: list[tuple[str, ...] | None] = []
    for sequence in splits[split]:
        if sequence not in chosen[split]:
            has_gt = (sequence / _GT).is_file()
            notes.append((OTHER_DETECTORS if has_gt else NO_GT, str(sequence)))
            continue
        with guard:
            labels, gt = sequence / _LABELS, sequence / _GT
            listed.append(read_class_names(labels) if labels.is_file() else None)
            info = _read_info(sequence)
            frames = _frames(info, gt)
            objects = objects_by_frame(gt, listed[-1], guard, notes)
            for number in sorted(frames.keys() | objects.keys()):
                path = info.images / (frames.get(number) or f"{number:06d}{info.suffix or '.jpg'}")
                found, where = tuple(objects.get(number, ())), f"frame {number}"
                place = relative_name(path, root), path, gt
                images.append(RawImage(*place, found, where, info.size))
    names = None if None in listed else tuple(dict.fromkeys(itertools.chain(*listed)))
    return RawSplit(tuple(images), names, notes=tuple(notes))


def _read_info(sequence: Path) -> _Info:
    """The content of seqinfo.ini, which a sequence may lack."""
    path = sequence / _INFO
    if not path.is_file():
        return _Info(sequence / _IMAGES)
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read_string(read_text(path))
        stated = dict(parser["Sequence"])
    except (configparser.Error, KeyError) as error:
        what = f"cannot be read ({str(error).splitlines()[0]})"
        fix = "write the line [Sequence], and below it imDir=img1, imExt=.jpg and so on"
        raise DataError("seqinfo.ini", path, "", what, fix) from error
    size = fields.size(stated.get("imheight"), stated.get("imwidth"))
    images = sequence / stated.get("imdir", _IMAGES).strip()
    return _Info(images, stated.get("imext", "").strip().lower(), size)


def _frames(info: _Info, gt: Path) -> dict[int, str]:
    """The images of a sequence by the number of their frame, from 1.

    Raises:
      DataError: the names are not those of frames, or some frames are missing.
    """
    names = list_folder(info.images).images()
    names = [name for name in names if info.suffix in ("", suffix_of(name))]
    stems = [stem_of(name) for name in names]
    if all(map(str.isdecimal, stems)):
        numbers = list(map(int, stems))
    else:
        matches = [_FRAME.fullmatch(stem) for stem in stems]
        numbers = [int(match[1]) for match in matches if match]
        # CVAT numbers the frames of a task from 1, in steps of 1, whatever their names are.
        steps = {after - before for before, after in itertools.pairwise(numbers)}
        if None in matches or len(steps) > 1:
            what = f"numbers frames, but images in {info.images} are called {_some(names)}"
            fix = "name the image of frame 1 000001 and so on, or export 'CVAT for images'"
            raise DataError("frames", gt, "", what, fix)
        numbers = range(1, len(names) + 1)
    frames = dict(zip(numbers, names, strict=True))
    if len(frames) < len(names):
        double = [name for name in names if name not in frames.values()]
        what, fix = f"several images in {info.images} have the number of {double[0]}", "keep one"
        raise DataError("frames", gt, "", what, fix)
    return frames


def _some(names: Sequence[str]) -> str:
    return ", ".join(map(fields.short, names[:3])) + (", ..." if len(names) > 3 else "")
