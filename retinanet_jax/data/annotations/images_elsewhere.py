"""Finds images in other folders than the annotations, as extracted archives often have them.

The layout is then found in one of several folders of the dataset, and this folder has no images:
labels/labels/train.json beside images/images/train/.
"""

import contextlib
import functools
import os
from collections.abc import Callable
from pathlib import Path

from retinanet_jax.data.annotations.folder_files import has_images, relative_name, stem_of
from retinanet_jax.data.annotations.image_finder import ImageFinder
from retinanet_jax.data.annotations.raw import Layout, RawImage, RawSplit
from retinanet_jax.data.annotations.split_names import split_of_file
from retinanet_jax.data.data_errors import DataError, Guard


def with_images_of(root: Path, layout: Layout, place: Path) -> Layout:
    """Returns the layout of a place in `root`; if the place has no images, with those of `root`."""
    if place == root or has_images(place) or not has_images(root):
        return layout
    read = functools.partial(_read, layout.read, root, place, len(layout.splits) == 1)
    outside = [folder for folder in layout.folders if not folder.is_relative_to(root)]
    return layout._replace(read=read, folders=(root, *outside))


def _read(
    read: Callable[[str, Guard], RawSplit],
    root: Path,
    place: Path,
    is_alone: bool,
    split: str,
    guard: Guard,
) -> RawSplit:
    """What `read` returns, with the images that are missing in `place` from wherever they are.

    An image in a folder of another split does not count. A name without its suffix counts only if
    no image is found by a whole name, since the reader then had to guess the suffixes: else masks
    would replace photographs that are missing.
    """
    raw, images = read(split, guard), []
    missing = {id(image): image for image in raw.images if _is_missing(image)}
    if is_alone and not any(split_of_file(i.annotation_file, root) for i in missing.values()):
        split = ""  # a name that the reader chose
    finder = ImageFinder(root, split, [root])

    def find(image: RawImage, name_of: Callable[[str], str]) -> str | None:
        name = name_of(relative_name(image.path, place))
        found = finder.find(name, image.annotation_file, image.where)
        return found if finder.exists(found) else None

    def is_found(image: RawImage) -> bool:
        with contextlib.suppress(DataError):
            return find(image, str) is not None
        return False

    name_of = str if any(map(is_found, missing.values())) else stem_of
    for image in raw.images:
        with guard:
            if id(image) in missing and (found := find(image, name_of)):
                image = image._replace(path=Path(found), file_name=relative_name(found, root))
            images.append(image)
    return raw._replace(images=tuple(images))


def _is_missing(image: RawImage) -> bool:
    return isinstance(image.path, Path) and not os.path.isfile(image.path)
