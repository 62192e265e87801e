"""The objects of an image in the metadata of Hugging Face's imagefolder."""

from pathlib import Path
from typing import Any

from retinanet_jax.data.annotations import annotation_fields as fields
from retinanet_jax.data.annotations.ignore_marks import is_ignored, is_mark
from retinanet_jax.data.annotations.raw import RawObject
from retinanet_jax.data.data_errors import DataError, Guard

CLASS_FIELDS = (
    *("category", "categories", "category_id", "category_ids", "label", "labels", "class"),
    *("classes", "class_name", "class_names", "name", "names"),
)


def stated_objects(entry: dict, path: Path, where: str) -> Any:
    """Returns the field `objects`, or an unambiguous substitute; None if there are no boxes.

    Raises:
      DataError: there are boxes elsewhere.
    """
    if "objects" in entry:
        return entry["objects"]
    stated = {name: value for name, value in entry.items() if value is not None}
    found = [name for name, value in stated.items() if name == "bbox" or _has_boxes(value)]
    if not found:
        return None
    if len(found) == 1 and found != ["bbox"]:
        return entry[found[0]]
    boxes = entry.get("bbox")
    if len(found) == 1 and isinstance(boxes, list) and all(isinstance(b, list) for b in boxes):
        columns = [n for n in entry if n in ("bbox", "area", *CLASS_FIELDS) or is_mark(n)]
        return {name: entry[name] for name in columns if isinstance(entry[name], list)}
    what = f"has no field 'objects', but has boxes in {', '.join(found[:3])}"
    fix = "write 'objects', a dict with the lists bbox and categories"
    raise DataError("objects", path, where, what, fix)


def _has_boxes(value: Any) -> bool:
    """Whether a field is a dict of lists, or a list of objects, with `bbox`."""
    entries = value if isinstance(value, list) and value else [value]
    return all(isinstance(entry, dict) and "bbox" in entry for entry in entries)


def read_objects(
    value: Any, path: Path, where: str, class_names: tuple[str, ...] | None, guard: Guard
) -> tuple[RawObject, ...]:
    """Returns checked objects; the guard collects errors of single ones."""
    if value is None:
        return ()
    objects = []
    for number, entry in enumerate(object_entries(value, path, where)):
        with guard:
            place = f"object {number}"
            field = next((name for name in CLASS_FIELDS if name in entry), "category")
            label = fields.field(entry, field, path, f"{where}: {place}")
            name = _class_name(label, class_names, path, f"{where}: {place}")
            box = tuple(fields.box(entry, path, f"{where}: {place}"))
            crowd = is_ignored(entry, path, f"{where}: {place}")
            area = fields.area(entry, path, f"{where}: {place}")
            objects.append(RawObject(name, box, place, area=area, crowd=crowd))
    return tuple(objects)


def object_entries(value: Any, path: Path, where: str) -> list[dict]:
    """Returns objects as a list of dicts, from such a list or from a dict of lists.

    Raises:
      DataError: it is neither, or the lists differ in length.
    """
    if isinstance(value, dict):
        lists = {key: column for key, column in value.items() if isinstance(column, list)}
        lengths = {key: len(column) for key, column in lists.items()}
        if len(set(lengths.values())) > 1:
            what = f"objects has lists of different lengths: {fields.short(lengths)}"
            raise DataError("objects", path, where, what, "write one element for each object")
        keys = list(lists)
        return [dict(zip(keys, row, strict=True)) for row in zip(*lists.values(), strict=True)]
    if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
        what = f"objects is {fields.short(value)}"
        fix = "write a dict with the lists bbox and categories, or a list of objects"
        raise DataError("objects", path, where, what, fix)
    return value


def _class_name(label: Any, class_names: tuple[str, ...] | None, path: Path, where: str) -> str:
    if isinstance(label, str) and label.strip() and (class_names is None or label in class_names):
        return label
    if type(label) is int and label >= 0 and (class_names is None or label < len(class_names)):
        return str(label) if class_names is None else class_names[label]
    known = "a name or a number" if class_names is None else f"one of {len(class_names)} classes"
    what = f"the class is {fields.short(label)}"
    raise DataError("class name", path, where, what, f"write {known}")
