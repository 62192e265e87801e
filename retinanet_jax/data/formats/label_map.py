"""Label maps of TensorFlow's Object Detection API: ids and names of classes (.pbtxt).

The text form of its message StringIntLabelMap:

    item { id: 1  name: '/m/01yrx'  display_name: 'cat' }
"""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from retinanet_jax.data.annotations import annotation_fields as fields
from retinanet_jax.data.annotations.folder_files import ascii_head, list_folder, read_text
from retinanet_jax.data.data_errors import DataError

_HEAD, _ITEM = 1 << 12, re.compile(rb"\bitem\s*:?\s*[{<]")


class LabelMap(NamedTuple):
    """Names of classes by their ids, the display name where there is one; ids by both names."""

    path: Path
    names: dict[int, str]
    ids: dict[str, int]

    def class_name(self, text: str, label: int | None, path: Path, where: str) -> str:
        """Returns the name of an object's class by its text, or without one by its label.

        Raises:
          DataError: the map does not have the class; `path` and `where` name the object.
        """
        number = self.ids.get(text) if text else label
        # Datumaro, and CVAT with it, leave all but ASCII out of the text.
        if number is None and text.encode() == self.names.get(label, "").encode("ascii", "ignore"):
            number = label
        if number not in self.names:
            stated = f"class {fields.short(text)}" if text else f"class number {label}"
            what, fix = f"{stated} is not in {self.path.name}", "add it there, or fix the class"
            raise DataError("class name", path, where, what, fix)
        return self.names[number]

    def has(self, text: bytes, label: int | None) -> bool:
        """Returns whether a class has this name and number, one of which may be missing."""
        try:
            name = self.class_name(text.decode("utf-8", "replace"), label, self.path, "")
        except DataError:
            return False
        return label in (None, self.ids[name])


def find_label_map(folders: Iterable[Path], stem: str) -> Path | None:
    """Returns the label map in the first of some folders that has one.

    If a folder has several, one whose name begins with `stem` is preferred.

    Raises:
      DataError: several label maps differ.
    """
    for folder in folders:
        paths = [folder / name for name in list_folder(folder).with_suffix(".pbtxt")]
        paths = [path for path in paths if _ITEM.search(ascii_head(path, _HEAD))]
        paths = [path for path in paths if path.name.startswith(stem)] or paths
        if len(set(map(read_text, paths))) > 1:
            what = f"{' and '.join(path.name for path in paths[:3])} differ"
            raise DataError("label map", folder, "", what, "keep only the one for this data")
        if paths:
            return paths[0]
    return None


def read_label_map(path: Path) -> LabelMap:
    """Returns the classes of a label map in the order of their ids, without a background of id 0.

    Raises:
      DataError: the file cannot be read, or an id or a name is invalid or repeated.
    """
    found = LabelMap(path, {}, {})
    items = [item for item in _items(path) if item.id or "background" not in _names(item)]
    for number, item in enumerate(sorted(items, key=lambda item: item.id), 1):
        where, names = f"item {number}", _names(item)
        name = fields.text({"name": names[-1] if names else ""}, "name", path, where).strip()
        if item.id < 1:
            what = f"the id of {name!r} is {item.id}"
            raise DataError("label map", path, where, what, "number the classes from 1")
        if item.id in found.names or any(text in found.ids for text in (name, *names)):
            what = f"the id {item.id} or the name {name!r} is used twice"
            raise DataError("label map", path, where, what, "list each class once")
        found.names[item.id] = name
        found.ids.update(dict.fromkeys((name, *names), item.id))
    if not found.names:
        raise DataError("label map", path, "", "has no class", "write one item per class")
    return found


def _names(item) -> list[str]:
    return [name for name in (item.name, item.display_name) if name]


def _items(path: Path) -> list:
    """The items as messages with name, id and display_name."""
    # Imported here: no other layout needs it.
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format

    kinds = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="label_map.proto", package="label_map")
    whole, item = file.message_type.add(name="Map"), file.message_type.add(name="Item")
    repeated = {"label": kinds.LABEL_REPEATED, "type_name": ".label_map.Item"}
    whole.field.add(name="item", number=1, type=kinds.TYPE_MESSAGE, **repeated)
    for number, name in enumerate(("name", "id", "display_name"), 1):
        kind = kinds.TYPE_INT32 if name == "id" else kinds.TYPE_STRING
        item.field.add(name=name, number=number, type=kind, label=kinds.LABEL_OPTIONAL)
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    kind = message_factory.GetMessageClass(pool.FindMessageTypeByName("label_map.Map"))
    try:
        return list(text_format.Parse(read_text(path), kind(), allow_unknown_field=True).item)
    except (text_format.ParseError, RecursionError) as error:
        what, fix = f"is not a label map ({error})", "write item { id: 1 name: 'cat' } for a class"
        raise DataError("label map", path, "", what, fix) from error
