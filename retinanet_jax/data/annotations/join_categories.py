"""Joins the categories of all splits of a dataset into one list, matched by name."""

from collections.abc import Sequence

from retinanet_jax.data.annotations.annotation_fields import short
from retinanet_jax.data.annotations.file_names import fold
from retinanet_jax.data.annotations.raw import EVERY_CLASS, RawSplit
from retinanet_jax.data.archives import AnyPath
from retinanet_jax.data.data_errors import DataError
from retinanet_jax.data.records import Categories


def join_categories(splits: Sequence[RawSplit], path: AnyPath = "data") -> Categories:
    """Returns one list of categories for several splits.

    The first split that has a category sets its order and id.

    The first split is the training split. Classes that only other splits have follow. Ids that are
    missing or already used are replaced by the next free ones. `path` names the dataset in
    messages.

    Raises:
      DataError: there is no class, two names differ only in case, spaces or Unicode form, or a
        split has the numbers of classes that another one names.
    """
    _check_numbers(splits)
    names: list[str] = []
    ids: list[int] = []
    folded: dict[str, str] = {}
    for split in splits:
        new = [pair for pair in stated_categories(split) if pair[0] not in names]
        for name, category_id in new:
            key = fold(name).strip()
            if (other := folded.get(key)) is not None:
                _refuse(name, other, split)
            folded[key] = name
            names.append(name)
            taken = category_id is None or category_id in ids
            ids.append(max(ids, default=0) + 1 if taken else category_id)
    if not names:
        path = next((image.annotation_file for split in splits for image in split.images), path)
        what, fix = "no object has a class", "annotate some objects, or check data.root"
        raise DataError("categories", path, "", what, fix)
    return Categories(tuple(names), tuple(ids))


def stated_categories(split: RawSplit) -> list[tuple[str, int | None]]:
    """Returns the (name, id) pairs of the classes of a split, in its order."""
    if split.class_names is not None:
        ids = split.category_ids or [None] * len(split.class_names)
        return list(zip(split.class_names, ids, strict=True))
    used = {found.class_name for image in split.images for found in image.objects}
    used.discard(EVERY_CLASS)
    return [(name, None) for name in sorted(used)]


def _check_numbers(splits: Sequence[RawSplit]) -> None:
    """Raises DataError if all classes of a split are numbers, unlike those of another one.

    Its annotations number the classes, and only the other split has their names.
    """
    names = [[name for name, _ in stated_categories(split)] for split in splits]
    for split, own in zip(splits, names, strict=True):
        other = next(
            (found for found in names if found and not any(map(str.isdecimal, found))), None
        )
        if other and own and all(map(str.isdecimal, own)):
            path = split.images[0].annotation_file if split.images else "data"
            what = f"its classes are the numbers {short(', '.join(own))}, those of another split "
            what += f"are named {short(', '.join(other))}"
            fix = "put the list of their names, such as classes.txt, beside both splits"
            raise DataError("class names", path, "", what, fix)


def _refuse(name: str, other: str, split: RawSplit) -> None:
    used = (i for i in split.images if name in {found.class_name for found in i.objects})
    image = next(used, split.images[0] if split.images else None)
    path = image.annotation_file if image else "data"
    what = f"class {name!r} differs from class {other!r} only in case, spaces or Unicode form"
    raise DataError("categories", path, "", what, "use one spelling")
