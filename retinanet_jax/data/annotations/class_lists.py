"""Reads lists of class names beside annotations: classes.txt, labels.txt and the like."""

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from retinanet_jax.data.annotations.folder_files import list_folder, read_text
from retinanet_jax.data.data_errors import DataError

CLASS_FILES = ("classes.txt", "labels.txt", "predefined_classes.txt")


def find_class_names(
    folders: Iterable[Path],
    files: Sequence[str] = CLASS_FILES,
    left_out: Collection[str] = (),
) -> tuple[str, ...] | None:
    """Returns the class names listed in some folders; None if there is no list.

    Args:
      files: file names of lists, in lower case.
      left_out: names that are not classes.

    Raises:
      DataError: a list is broken, or there are several lists and they differ.
    """
    first: tuple[Path, tuple[str, ...]] | None = None
    for path in (path for folder in dict.fromkeys(folders) for path in _lists_in(folder, files)):
        names = read_class_names(path, left_out)
        if first is not None and first[1] != names:
            what = f"its class names differ from those in {first[0]}"
            raise DataError("class names", path, "", what, "write the same names in both")
        first = first or (path, names)
    return first[1] if first else None


def _lists_in(folder: Path, files: Sequence[str]) -> list[Path]:
    """The files of some names, which may differ in upper and lower case."""
    present = {n.lower(): n for n in list_folder(folder).files if n.lower() in files}
    return [folder / present[file] for file in files if file in present]


def read_class_names(path: Path, left_out: Collection[str] = ()) -> tuple[str, ...]:
    """Returns the class names of a text file with one name per line, in the order of the labels.

    Raises:
      DataError: the file cannot be read, has no names, or has an empty or repeated name.
    """
    lines = [line.strip() for line in read_text(path).splitlines()]
    while lines and not lines[-1]:
        lines.pop()
    return checked_class_names([line for line in lines if line not in left_out], path)


def checked_class_names(names: list[str], path: Path) -> tuple[str, ...]:
    """Returns the class names as a tuple.

    Raises:
      DataError: there are no names, or one is empty or repeated; `path` is the file to name.
    """
    if not names:
        raise DataError("class names", path, "", "has no class name", "write one name per line")
    seen: dict[str, int] = {}
    for number, name in enumerate(names, 1):
        if not name:
            what = "is empty, which would shift the labels of the classes after it"
            raise DataError("class names", path, f"class {number}", what, "write its name")
        if name in seen:
            what = f"{name!r} is also class {seen[name]}"
            raise DataError("class names", path, f"class {number}", what, "name each class once")
        seen[name] = number
    return tuple(names)
