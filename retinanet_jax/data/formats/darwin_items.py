"""The images of a Darwin JSON file: the slots of an item (2.0), or its image (1.0)."""

import os
import re
from pathlib import Path
from typing import Any, NamedTuple

from retinanet_jax.data.annotations import annotation_fields as fields
from retinanet_jax.data.annotations.folder_files import stem_of, suffix_of
from retinanet_jax.data.data_errors import DataError

_FRAMES = ("frame_count", "frame_urls", "frame_manifests", "fps")
_EXPORT = "export the annotations again"


class Slot(NamedTuple):
    """An image of an item.

    names: possible names of its file, the most likely first.
    where: the slot, if an item has several.
    annotations: annotations of the image, each with its place in the file.
    size: stated (height, width) in pixels.
    is_image: False for a video or a volume.
    """

    names: list[str]
    where: str
    annotations: list[tuple[str, Any]]
    size: tuple[int, int] | None
    is_image: bool


def slots_of(content: dict, stem: str, path: Path) -> list[Slot]:
    """Returns the images of a file.

    `stem` is the file's name without suffix, which is tried last as the name of an image.
    """
    listed = content.get("annotations")
    if not isinstance(listed, list):
        what = f"annotations is {fields.short(listed)}"
        raise DataError("annotation file", path, "", what, "write a list")
    annotations = [(f"annotations[{number}]", entry) for number, entry in enumerate(listed)]
    if "item" not in content:
        image = _object(content, "image", path)
        names = [_in_folder(image, image.get(n)) for n in ("original_filename", "filename")]
        return [_slot([*names, stem], "", annotations, image)]
    item = _object(content, "item", path)
    slots = item.get("slots") or [{}]
    if not isinstance(slots, list) or not all(isinstance(slot, dict) for slot in slots):
        what = f"slots is {fields.short(slots)}"
        raise DataError("annotation file", path, "item", what, _EXPORT)
    if len(slots) == 1:
        return [_slot([*_names(item, slots[0]), stem], "", annotations, slots[0])]
    of_slot = _by_slot(annotations, [slot.get("slot_name") for slot in slots], path)
    return [
        _slot(_names_in_slot(item, slot), f"slot {fields.short(slot.get('slot_name'))}", of, slot)
        for slot, of in zip(slots, of_slot, strict=True)
    ]


def _object(content: dict, name: str, path: Path) -> dict:
    if not isinstance(content[name], dict):
        what = f"{name} is {fields.short(content[name])}"
        raise DataError("annotation file", path, "", what, _EXPORT)
    return content[name]


def _slot(
    names: list[str | None], where: str, annotations: list[tuple[str, Any]], stated: dict
) -> Slot:
    size = fields.size(stated.get("height"), stated.get("width"))
    # The frames of a video, as darwin-py writes them, are of the type 'video' without frames.
    is_image = stated.get("type") == "image" or not any(stated.get(name) for name in _FRAMES)
    found = list(dict.fromkeys(name for name in names if name))
    return Slot(found, where, annotations, size, is_image)


def _names(item: dict, slot: dict) -> list[str | None]:
    """darwin-py gives the file the name of the item and the suffix of what was uploaded."""
    name, (source, local) = item.get("name"), _source(slot)
    if not isinstance(name, str):
        return [local, _in_folder(item, source)]
    renamed = stem_of(os.path.basename(name)) + suffix_of(source or name)
    stated = [renamed, _sanitized(renamed), name, _sanitized(name), source]
    return [local, *(_in_folder(item, one) for one in stated)]


def _names_in_slot(item: dict, slot: dict) -> list[str | None]:
    """The file of an item with several slots is in ITEM/SLOT/."""
    (source, local), place = _source(slot), [str(item.get("name")), str(slot.get("slot_name"))]
    name = "/".join([*map(_sanitized, place), _sanitized(source or "")])
    return [local, _in_folder(item, name), _in_folder(item, source)]


def _source(slot: dict) -> tuple[str | None, str | None]:
    """The name of the uploaded file, and the path that darwin-py has downloaded it to."""
    sources = slot.get("source_files")
    first = sources[0] if isinstance(sources, list) and sources else None
    stated = first if isinstance(first, dict) else {}
    names = (stated.get(name) for name in ("file_name", "local_path"))
    source, local = (name if isinstance(name, str) and name.strip() else None for name in names)
    return source, local


def _in_folder(item: dict, name: Any) -> str | None:
    """The name with the folder that V7 shows it in."""
    if not isinstance(name, str) or not name.strip():
        return None
    folder = item.get("path")
    folder = folder.replace("\\", "/").strip("/") if isinstance(folder, str) else ""
    return f"{folder}/{name}" if folder else name


def _sanitized(name: str) -> str:
    """As darwin-py names a file."""
    return re.sub(r'[<>"/\\|?*]', "_", name)


def _by_slot(
    annotations: list[tuple[str, Any]], slots: list[Any], path: Path
) -> list[list[tuple[str, Any]]]:
    """The annotations of each slot.

    Raises:
      DataError: one does not state its slot.
    """
    found: list[list[tuple[str, Any]]] = [[] for _ in slots]
    for where, entry in annotations:
        stated = entry.get("slot_names") if isinstance(entry, dict) else None
        if not isinstance(stated, list) or not stated or stated[0] not in slots:
            what = f"slot_names is {fields.short(stated)}"
            fix = f"name one of the slots {', '.join(map(fields.short, slots))}"
            raise DataError("slot", path, where, what, fix)
        found[slots.index(stated[0])].append((where, entry))
    return found
