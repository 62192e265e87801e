"""Which layout a folder has, found by trying the finders of all layouts in order."""

import collections
import os
from pathlib import Path

from retinanet_jax.data.data_errors import DataError
from retinanet_jax.data.formats import (
    coco_layouts,
    csv_tables,
    imagefolder,
    labelme,
    via,
    voc_folder,
    yolo,
)
from retinanet_jax.data.formats.raw import Finder, Layout

AUTO = "auto"
# The first that fits is taken.
FINDERS: dict[str, Finder] = {
    "coco": coco_layouts.find,
    "yolo": yolo.find,
    "voc": voc_folder.find,
    "labelme": labelme.find,
    "via": via.find,
    "csv": csv_tables.find,
    "imagefolder": imagefolder.find,
}
_UNDERSTOOD = """\
  coco         annotations/instances_<split>.json, <split>/_annotations.coco.json (Roboflow),
               result.json + images/ (Label Studio), labels.json + data/ (FiftyOne), any COCO file
  yolo         data.yaml, or images/ + labels/
  voc          Annotations/ + JPEGImages/, or XML beside the images
  labelme      one JSON file per image
  via          VGG Image Annotator's JSON or CSV
  csv          a CSV file with columns for file, box and class
  imagefolder  metadata.jsonl or metadata.csv beside the images (Hugging Face)"""
_SHOWN = 8


def find_layout(root: Path, layout: str = AUTO) -> tuple[Layout, str]:
    """The layout of a dataset's folder or file, and a line that reports what was found.

    A folder that holds nothing but one folder is looked into.

    Args:
      root: of the dataset.
      layout: 'auto', or the one name to try.

    Raises:
      DataError: there is no such folder, or no layout fits; the message lists what is there. Or
        the one that fits has a broken file.
    """
    if not root.exists():
        raise DataError("missing folder", root, "", "is not there", "set data.root to a folder")
    names = list(FINDERS) if layout == AUTO else [layout]
    place = root
    for _ in range(3):
        found, errors = _try(names, place)
        if found:
            return _chosen(found, root, place)
        if errors:
            raise errors[0]
        inner = _only_folder(place)
        if inner is None:
            break
        place = inner
    raise _unrecognized(root, layout)


def _try(names: list[str], place: Path) -> tuple[dict[str, Layout], list[DataError]]:
    found, errors = {}, []
    for name in names:
        try:
            layout = FINDERS[name](place)
        except DataError as error:
            errors.append(error)
            continue
        if layout is not None:
            found[name] = layout
    return found, errors


def _chosen(found: dict[str, Layout], root: Path, place: Path) -> tuple[Layout, str]:
    name, *others = found
    layout = found[name]
    where = f"{root}" if place == root else f"{root}, in {place.relative_to(root)}"
    line = f"{where}: {layout.tool}; splits on disk: {', '.join(layout.splits)}"
    if others:
        other = others[0]
        line += (
            f"; it also fits {', '.join(others)}: --config.data.layout={other} reads "
            f"{found[other].tool} instead"
        )
    return layout, line


def _only_folder(place: Path) -> Path | None:
    """The one folder in a folder without other content."""
    if not place.is_dir():
        return None
    entries = [e for e in place.iterdir() if not e.name.startswith((".", "__MACOSX"))]
    return entries[0] if len(entries) == 1 and entries[0].is_dir() else None


def _unrecognized(root: Path, layout: str) -> DataError:
    what = "no layout fits" if layout == AUTO else f"it is not in the layout {layout!r}"
    fix = f"arrange it as one of these, or set data.layout:\n{_UNDERSTOOD}"
    return DataError("layout", root, "", f"{what}; there {_content(root)}", fix)


def _content(root: Path) -> str:
    """What a folder has, in a few words."""
    if root.is_file():
        return "is a single file"
    folders, kinds = [], collections.Counter()
    for _, inner, files in os.walk(root):
        folders += [name for name in sorted(inner) if not name.startswith(".")]
        kinds.update(Path(name).suffix.lower() or "no suffix" for name in files)
        if len(folders) > _SHOWN:
            break
    named = ", ".join(f"{name}/" for name in folders[:_SHOWN]) or "no folders"
    counted = ", ".join(f"{n} x {kind}" for kind, n in kinds.most_common(_SHOWN)) or "no files"
    return f"are {named} and {counted}"
