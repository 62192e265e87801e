"""The input files of a command, and the output path of each."""

import glob
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from retinanet_jax.data.data_errors import DataError
from retinanet_jax.data.image_input import files_below, is_image
from retinanet_jax.data.live_video import is_live
from retinanet_jax.data.video import is_video

# Formats that a drawn image keeps; all others become PNG.
_KEPT_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")


class Inputs(NamedTuple):
    """Distinct inputs, in the order in which they were named.

    left_out: files of folders that are neither images nor videos.
    live: numbers of webcams, and URLs.
    """

    images: list[Path]
    videos: list[Path]
    left_out: list[Path]
    live: list[str]


def find_inputs(named: Sequence[str], *without: Path) -> Inputs:
    """The named files, those in named folders, and those that match patterns.

    Args:
      named: files, folders and patterns such as 'photos/**/*.jpg'; numbers of webcams and URLs. A
        file named itself counts as an image unless it has the suffix of a video.
      without: folders that are skipped inside of other folders: the results of an earlier command.

    Raises:
      DataError: a name does not exist and is not a pattern that matches anything.
    """
    inputs, seen = Inputs([], [], [], []), set()
    for name in named:
        if is_live(name) and not Path(name).exists():
            inputs.live.append(name)
            continue
        for path, is_named in _files(name, without):
            if os.path.abspath(path) in seen:
                continue
            seen.add(os.path.abspath(path))
            if is_video(path):
                inputs.videos.append(path)
            else:
                kept = inputs.images if is_named or is_image(path) else inputs.left_out
                kept.append(path)
    return inputs


def _files(name: str, without: Sequence[Path]) -> list[tuple[Path, bool]]:
    """The files of a name, each with whether the name is that of the file itself."""
    path = Path(name).expanduser()
    if not path.exists() and glob.has_magic(name):
        paths = [Path(found) for found in sorted(glob.glob(str(path), recursive=True))]
    else:
        paths = [path]
    if not paths or not (paths[0].exists() or paths[0].is_symlink()):
        fix = "pass an image, a video, a folder, or a pattern in quotes"
        raise DataError("missing input", name, "", "does not exist", fix)
    files = []
    for path in paths:
        if not path.is_dir():
            files.append((path, True))
            continue
        skipped = [os.path.abspath(folder) for folder in without]
        for file in files_below(path):
            if not any(_is_below(file, folder) for folder in skipped):
                files.append((file, False))
    return files


def _is_below(path: Path, folder: str) -> bool:
    return os.path.commonpath([os.path.abspath(path), folder]) == folder


def drawn_paths(inputs: Inputs, folder: Path) -> dict[Path, Path]:
    """Where each image and video is drawn: below `folder`, in their subfolders of a common folder.

    Raises:
      DataError: an input would be overwritten.
    """
    files = [*inputs.images, *inputs.videos]
    if not files:
        return {}
    places, root = {path: Path(os.path.abspath(path)) for path in files}, common_folder(files)
    originals = {place.resolve() for place in places.values()}
    targets: dict[Path, Path] = {}
    taken: set[Path] = set()
    for path, place in places.items():
        target = _free(folder / _drawn_name(place.relative_to(root), is_video(path)), taken)
        if target.resolve() in originals:
            fix = "name another folder for --out"
            raise DataError("output", target, "", "is an input and would be overwritten", fix)
        taken.add(target)
        targets[path] = target
    return targets


def common_folder(files: Iterable[Path]) -> Path:
    """The innermost folder that all files are in."""
    return Path(os.path.commonpath([Path(os.path.abspath(file)).parent for file in files]))


def copy_suffix(suffix: str) -> str:
    """The suffix of a drawn or upright copy of an image with this suffix."""
    return suffix if suffix.lower() in _KEPT_SUFFIXES else ".png"


def _drawn_name(path: Path, video: bool) -> Path:
    kept, new = ((".mp4",), ".mp4") if video else (_KEPT_SUFFIXES, ".png")
    return path if path.suffix.lower() in kept else path.with_name(path.name + new)


def _free(path: Path, taken: set[Path]) -> Path:
    """The path, or the first free one of NAME_2, NAME_3, ..."""
    number, free = 2, path
    while free in taken:
        number, free = number + 1, path.with_stem(f"{path.stem}_{number}")
    return free
