"""Maps file names in annotations to image files."""

import functools
import os
import unicodedata
import urllib.parse
from collections.abc import Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath

from retinanet_jax.data.annotations.annotation_fields import short
from retinanet_jax.data.annotations.folder_files import list_folder, stem_of
from retinanet_jax.data.archives import AnyPath
from retinanet_jax.data.data_errors import DataError, Report

ARCHIVE_SUFFIXES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar")
_NAMED = 3
BACKSLASHES, FOLDER_IN_NAME = "file name with \\ for /", "file name that includes its folder"


def names_of_address(address: str) -> list[str]:
    """Returns the possible file names of an address: as stated, and decoded."""
    decoders = urllib.parse.unquote, urllib.parse.unquote_plus
    return list(dict.fromkeys([address, *(decode(address) for decode in decoders)]))


def find_image(
    folder: AnyPath, name: str, report: Report, where: str, *, root: Path | None = None
) -> AnyPath | None:
    r"""Returns the image file with a name; None if no file fits.

    Names are tried as they are, with / for \, and relative to the parents of `folder` up to the
    parent of `root`: 'images/a.jpg' may stand for images/a.jpg in images/.

    Args:
      folder: folder of the images.
      name: file name as annotated, checked by `check_name`.
      report: counts names that had to be corrected, under `where`.
      root: folder of the dataset; with None, only `folder` is tried.
    """
    path = folder / name
    if _is_file(path):
        return path
    for base in _bases(folder, root):
        if base is not folder and _is_file(base / name):
            report.add(FOLDER_IN_NAME, where)
            return base / name
        if "\\" in name and _is_file(base / name.replace("\\", "/")):
            report.add(BACKSLASHES, where)
            return base / name.replace("\\", "/")
    return None


def _bases(folder: AnyPath, root: Path | None) -> Iterator[AnyPath]:
    yield folder
    if root is None or not isinstance(folder, Path) or not folder.is_relative_to(root):
        return
    for parent in folder.parents:
        yield parent
        if parent == root.parent:
            return


def _is_file(path: AnyPath) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # such as a name that is too long
        return False


def check_name(name: str, path: AnyPath, where: str) -> None:
    """Raises DataError for a file name that leads out of the image folder."""
    if leads_out(name) or "\0" in name:
        what = f"file_name {short(name)} leads out of the image folder"
        raise DataError("file_name", path, where, what, "write it relative to the image folder")


def leads_out(name: str) -> bool:
    """Returns whether a file name is absolute or has a part '..'."""
    absolute = name.startswith("/") or PureWindowsPath(name).drive
    return (
        bool(absolute) or ".." in PurePosixPath(name).parts or ".." in PureWindowsPath(name).parts
    )


def explain_missing(path: AnyPath) -> str:
    """Returns a hint for a missing image file: a file with a similar name; '' if there is none."""
    name = path.name
    if "\\" in name:
        plain = path.parent / name.replace("\\", "/")
        return f"neither {path} nor {plain} exists"
    if not isinstance(path, Path):
        return ""
    # os.path.isdir, unlike Path.is_dir, is False for a name that is too long.
    folder = next((parent for parent in path.parents if os.path.isdir(parent)), None)
    if folder is None:
        return ""
    folded = _names_in(folder, folder.stat().st_mtime_ns)
    other = folded.get(fold(name))
    if other is None:
        stem = stem_of(fold(name))
        if same := [other for key, other in folded.items() if stem_of(key) == stem]:
            return f"there is {folder / same[0]}: write this name if it is the image"
        archives = name_archives(folder)
        return archives and f"put the file there{archives}"
    if folder == path.parent and other == name:
        return "the link of this name leads to no file"
    if folder != path.parent:
        return (
            f"there is {folder / other}: leave {path.parent.relative_to(folder)}/ out of the name"
        )
    return explain_difference(name, other)


def name_archives(folder: Path) -> str:
    """Returns text that suggests extracting the archives in a folder; '' if it has none."""
    names = list_folder(folder).with_suffix(*ARCHIVE_SUFFIXES)
    return f", or extract {', '.join(names[:_NAMED])}" if names else ""


def explain_difference(name: str, other: str) -> str:
    """Returns how the file name `other` differs from a name that equals it when folded."""
    if unicodedata.normalize("NFC", other) == unicodedata.normalize("NFC", name):
        return f"there is {other!r}, whose Unicode form differs (NFC or NFD): rename the file"
    return f"there is {other!r}, which differs in upper and lower case: rename one of them"


@functools.lru_cache(maxsize=64)
def _names_in(folder: Path, mtime: int) -> dict[str, str]:
    return {fold(entry.name): entry.name for entry in folder.iterdir()}


def fold(name: str) -> str:
    """Returns a name without case and Unicode form, for comparisons."""
    return unicodedata.normalize("NFC", name).casefold()
