"""Several COCO files of one split: those that list different images are parts of it.

Others are variants, such as the keypoints and captions of the images, a small set of them, an
earlier version or the folds of a cross-validation: each is a split of its own.
"""

import functools
import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path

from retinanet_jax.data.annotations.join_categories import join_categories
from retinanet_jax.data.annotations.raw import RawObject, RawSplit
from retinanet_jax.data.annotations.split_names import is_split_name
from retinanet_jax.data.data_errors import DataError
from retinanet_jax.data.formats.coco_json import read_json

_PREFIXES = ("instances_", "annotations_", "coco_")


def plain_stem(path: Path) -> str:
    """Returns the name of a file without its suffix and usual prefixes: 'train' or 'train_v1'."""
    stem = path.stem
    for prefix in _PREFIXES:
        stem = stem.removeprefix(prefix)
    return stem


def are_parts(paths: Sequence[Path]) -> bool:
    """Returns whether the files of one split are parts of it.

    A file that is named as the split, beside train_small.json, is the whole split.
    """
    is_whole = any(is_split_name(plain_stem(path)) for path in paths)
    return len(paths) == 1 or (not is_whole and have_different_images(paths))


def have_different_images(paths: Iterable[Path]) -> bool:
    """Returns whether each image is named in one of the files, as far as they can be read."""
    names: set[str] = set()
    for path in paths:
        try:
            status = path.stat()
            found = _image_names(path, status.st_size, status.st_mtime_ns)
        except (DataError, OSError):
            return False
        if not found or not names.isdisjoint(found):
            return False
        names |= found
    return True


@functools.lru_cache(maxsize=64)  # each split looks for the files of the folder
def _image_names(path: Path, size: int, mtime: int) -> frozenset[str]:
    """The names of the images of a file; `size` and `mtime` tell that it changed."""
    images = read_json(path, annotated=False)["images"]
    names = (image.get("file_name") for image in images if isinstance(image, dict))
    return frozenset(name.replace("\\", "/") for name in names if isinstance(name, str))


def join_parts(parts: Sequence[RawSplit]) -> RawSplit:
    """Returns one split with the images of several, whose categories are matched by name.

    Ids of images and objects that an earlier part has are replaced later.

    Raises:
      DataError: two names of categories differ only in case, spaces or Unicode form.
    """
    if len(parts) == 1:
        return parts[0]
    categories = join_categories(parts)
    images, image_ids, object_ids = [], set(), set()
    for part in parts:
        for image in part.images:
            objects = tuple(_renumbered(found, object_ids) for found in image.objects)
            number = None if image.id in image_ids else image.id
            images.append(image._replace(objects=objects, id=number))
        image_ids |= {image.id for image in part.images}
        object_ids |= {found.id for image in part.images for found in image.objects}
    notes = tuple(itertools.chain(*(part.notes for part in parts)))
    return RawSplit(tuple(images), categories.names, categories.ids, notes)


def _renumbered(found: RawObject, taken: set[int | None]) -> RawObject:
    """An object, without its id if that is taken; messages still state it."""
    if found.id is None or found.id not in taken:
        return found
    return found._replace(id=None, where=found.where or f"annotation id {found.id}")
