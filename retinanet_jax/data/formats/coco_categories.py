"""Reads the list `categories` of a COCO file, as specified or as tools write it."""

from collections.abc import Collection

from retinanet_jax.data.annotations import annotation_fields as fields
from retinanet_jax.data.archives import AnyPath
from retinanet_jax.data.data_errors import DataError, Report
from retinanet_jax.data.records import Categories

REPEATED, ROOT = "category listed again", "root category without boxes, left out"


def read_categories(entries: list, path: AnyPath) -> Categories:
    """Returns the categories in the order of the file.

    Raises:
      DataError: there are none, or an id or name is missing, of the wrong type or used twice.
    """
    _check_not_empty(entries, path)
    names: list[str] = []
    ids: list[int] = []
    for place, entry in enumerate(entries):
        where = f"categories[{place}]"
        category_id = fields.integer(entry, "id", path, where)
        name = fields.text(entry, "name", path, where)
        for value, field, seen in ((category_id, "id", ids), (name, "name", names)):
            if value in seen:
                raise _used_twice(field, value, path, where)
            seen.append(value)
    return Categories(tuple(names), tuple(ids))


def usable_categories(
    entries: list, path: AnyPath, used: Collection[int | None], report: Report
) -> tuple[list[str], list[int]]:
    """Returns names and ids in the order of the file.

    Repeated categories and a root category are left out.

    VGG Image Annotator lists every category once per image. Roboflow puts a root before the
    classes: id 0, no boxes, and the name of the first class, or one that all others have as
    `supercategory`.

    Args:
      used: ids of the categories that have objects.

    Raises:
      DataError: as read_categories; an id with two names, or a name with two ids in use.
    """
    _check_not_empty(entries, path)
    found: dict[int, str] = {}
    supers: dict[int, object] = {}
    for place, entry in enumerate(entries):
        where = f"categories[{place}]"
        category_id = fields.integer(entry, "id", path, where, report)
        name = fields.text(entry, "name", path, where)
        if found.setdefault(category_id, name) != name:
            raise _used_twice("id", category_id, path, where)
        if category_id in supers:
            report.add(REPEATED, f"{path}: {where}")
        supers.setdefault(category_id, entry.get("supercategory"))
    root = _root(found, supers, used)
    if root is not None:
        report.add(ROOT, f"{path}: category id {root} ({found[root]!r})")
        del found[root]
    names = list(found.values())
    for place, name in enumerate(names):
        if name in names[:place]:
            raise _used_twice("name", name, path, "categories")
    return names, list(found)


def _root(
    names: dict[int, str], supers: dict[int, object], used: Collection[int | None]
) -> int | None:
    """The id of a root category; None if there is none."""
    first = next(iter(names))
    if first in used or len(names) == 1:
        return None
    others = [category_id for category_id in names if category_id != first]
    same_name = names[first] in [names[other] for other in others]
    is_super = all(supers[other] == names[first] for other in others)
    return first if same_name or (is_super and supers[first] in (None, "", "none")) else None


def _check_not_empty(entries: list, path: AnyPath) -> None:
    if not entries:
        raise DataError("categories", path, "categories", "is empty", "list at least one category")


def _used_twice(field: str, value: int | str, path: AnyPath, where: str) -> DataError:
    what = f"{field} {value!r} is used twice"
    return DataError("categories", path, where, what, "use each only once")
