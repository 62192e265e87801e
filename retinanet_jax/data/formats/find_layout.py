"""Which layout a folder has, found by trying the finders of all layouts in order."""

import collections
import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from retinanet_jax.data.data_errors import DataError
from retinanet_jax.data.formats import (
    coco_layouts,
    createml,
    csv_tables,
    cvat,
    imagefolder,
    kitti,
    label_studio,
    labelme,
    supervisely,
    via,
    voc_folder,
    yolo,
)
from retinanet_jax.data.formats.folder_files import IMAGE_SUFFIXES, list_folder
from retinanet_jax.data.formats.raw import Finder, Layout

AUTO = "auto"
# The first that fits is taken.
FINDERS: dict[str, Finder] = {
    "coco": coco_layouts.find,
    "yolo": yolo.find,
    "voc": voc_folder.find,
    "labelme": labelme.find,
    "supervisely": supervisely.find,
    "via": via.find,
    "createml": createml.find,
    "label_studio": label_studio.find,
    "cvat": cvat.find,
    "kitti": kitti.find,
    "csv": csv_tables.find,
    "imagefolder": imagefolder.find,
}
_UNDERSTOOD = """\
  coco         annotations/instances_<split>.json, <split>/_annotations.coco.json (Roboflow),
               result.json + images/ (Label Studio), labels.json + data/ (FiftyOne), any COCO file
  yolo         data.yaml, or images/ + labels/
  voc          Annotations/ + JPEGImages/, or XML beside the images
  labelme      one JSON file per image
  supervisely  meta.json, and img/ + ann/ in each dataset
  via          VGG Image Annotator's JSON or CSV
  createml     CreateML's JSON
  label_studio Label Studio's JSON
  cvat         CVAT's annotations.xml ('CVAT for images')
  kitti        label_2/ + image_2/
  csv          a CSV file with columns for file, box and class
  imagefolder  metadata.jsonl or metadata.csv beside the images (Hugging Face)"""
_SHOWN, _DEPTH, _MAX_FOLDERS = 8, 4, 50
_UNPACK = ("archives", "extract them and set data.root to the folder")
# Files of formats that are not read, and how to read their content.
_OTHER_FORMATS = {
    ".zip": _UNPACK,
    ".tar": _UNPACK,
    ".gz": _UNPACK,
    ".7z": _UNPACK,
    ".rar": _UNPACK,
    ".parquet": (
        "Parquet files, as on the Hugging Face hub",
        "read them with retinanet_jax.data.from_huggingface, or save them as an imagefolder",
    ),
    ".arrow": (
        "files of the datasets library",
        "read them with retinanet_jax.data.from_huggingface, or save them as an imagefolder",
    ),
    ".tfrecord": ("TFRecord files", "export the dataset as COCO, YOLO or Pascal VOC"),
    ".mp4": ("videos", "extract their frames and export the annotations of the frames as COCO"),
}


class Found(NamedTuple):
    """A layout and where it was found: in the root, or in a folder in it."""

    layout: Layout
    place: Path


def find_layout(root: Path, layout: str = AUTO) -> Found:
    """The first layout that fits a dataset's folder or file.

    Else the one folder in it that has a layout: archives and repositories often have one beside
    texts and scripts.

    Args:
      root: of the dataset.
      layout: 'auto', or the one name to try.

    Raises:
      DataError: there is no such folder, or no layout fits, or several folders in it have one;
        the message lists what is there. Or the first that fits has a broken file.
    """
    if not root.exists():
        raise DataError("missing folder", root, "", "is not there", "set data.root to a folder")
    if layout not in (AUTO, *FINDERS):
        fix = f"write one of auto, {', '.join(FINDERS)}"
        raise DataError("layout", "data.layout", "", f"is {layout!r}", fix)
    names = list(FINDERS) if layout == AUTO else [layout]
    places = [root]
    for _ in range(_DEPTH):
        tried = [_first(names, place) for place in places]
        found = [one for one in tried if isinstance(one, Found)]
        broken = [one for one in tried if isinstance(one, DataError)]
        if len(found) == 1 and not broken:
            return found[0]
        if found:
            raise _several(root, found)
        if broken:
            raise broken[0]
        places = [f for place in places for f in _folders(place)][:_MAX_FOLDERS]
    raise _unrecognized(root, layout)


def describe_layout(root: Path, found: Found, layout: str = AUTO) -> str:
    """A line that reports the layout and splits, and other layouts that fit and how to choose."""
    where = str(root) if found.place == root else f"{root}, in {found.place.relative_to(root)}"
    line = f"{where}: {found.layout.tool}; splits on disk: {', '.join(found.layout.splits)}"
    names = [name for name in FINDERS if name != found.layout.name] if layout == AUTO else []
    for other in _fitting(names, found.place):
        line += f"; --config.data.layout={other.name} would read {other.tool} instead"
    return line


def _first(names: list[str], place: Path) -> Found | DataError | None:
    """The first layout that fits a place, or its error if it has a broken file."""
    for number, name in enumerate(names):
        try:
            layout = FINDERS[name](place)
        except DataError as error:
            other = next(_fitting(names[number + 1 :], place), None)
            if other is None:
                return error
            return error.extended(f"; or set data.layout={other.name} to read {other.tool} instead")
        if layout is not None:
            return Found(layout, place)
    return None


def _fitting(names: list[str], place: Path) -> Iterator[Layout]:
    """The layouts that fit a place, in order, but for those with a broken file."""
    for name in names:
        with contextlib.suppress(DataError):
            if (layout := FINDERS[name](place)) is not None:
                yield layout


def _folders(place: Path) -> list[Path]:
    return [place / name for name in list_folder(place).folders]


def _several(root: Path, found: list[Found]) -> DataError:
    shown = [f"{f.place.relative_to(root)}/ ({f.layout.tool})" for f in found[:_SHOWN]]
    what = f"has a dataset in {', '.join(shown)}{', ...' if len(found) > _SHOWN else ''}"
    return DataError("layout", root, "", what, "set data.root to one folder")


def _unrecognized(root: Path, layout: str) -> DataError:
    others = [] if layout == AUTO else [name for name in FINDERS if name != layout]
    if found := next(_fitting(others, root), None):
        what = f"is not in the layout {layout!r} but in {found.name!r}"
        return DataError("layout", root, "", what, f"set data.layout={found.name}")
    what = "no layout fits" if layout == AUTO else f"it is not in the layout {layout!r}"
    folders, kinds = _content(root)
    for suffix, (kind, fix) in _OTHER_FORMATS.items():
        if kinds[suffix]:
            return DataError("layout", root, "", f"{what}; {kind} are not read", fix)
    if root.is_dir() and set(kinds) <= IMAGE_SUFFIXES:
        number = f"{kinds.total()} images" if kinds else "no files"
        what = f"there are {number}, and no annotations"
        return DataError("layout", root, "", what, "add the files of the annotation tool")
    fix = f"arrange it as one of these, or set data.layout:\n{_UNDERSTOOD}"
    named = ", ".join(f"{name}/" for name in folders) or "no folders"
    counted = ", ".join(f"{n} x {kind}" for kind, n in kinds.most_common(_SHOWN)) or "no files"
    there = "there is a single file" if root.is_file() else f"there are {named} and {counted}"
    return DataError("layout", root, "", f"{what}; {there}", fix)


def _content(root: Path) -> tuple[list[str], collections.Counter[str]]:
    """Names of the first few folders, and the number of files by their suffix."""
    if root.is_file():
        return [], collections.Counter([root.suffix.lower()])
    folders, kinds = [], collections.Counter()
    for _, inner, files in os.walk(root):
        folders += [name for name in sorted(inner) if not name.startswith(".")]
        kinds.update(Path(name).suffix.lower() or "no suffix" for name in files)
        if len(folders) > _SHOWN:
            break
    return folders[:_SHOWN], kinds
