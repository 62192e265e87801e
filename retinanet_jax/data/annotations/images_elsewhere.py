"""Finds images in other folders than the annotations, as extracted archives often have them.

The layout is then found in one of several folders of the dataset, and this folder has no images:
labels/labels/train.json beside images/images/train/.
"""

import functools
import os
from collections.abc import Callable
from pathlib import Path

from retinanet_jax.data.annotations.folder_files import has_images, relative_name, stem_of
from retinanet_jax.data.annotations.image_finder import ImageFinder
from retinanet_jax.data.annotations.raw import Layout, RawSplit
from retinanet_jax.data.data_errors import Guard


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

    By name, else by the name without its suffix, which a reader may have had to guess.
    """
    raw, images = read(split, guard), []
    finder = ImageFinder(root, "" if is_alone else split, [root])
    for image in raw.images:
        with guard:
            path = image.path
            if isinstance(path, Path) and not os.path.isfile(path):
                name = relative_name(path, place)
                found = finder.find_first([name, stem_of(name)], image.annotation_file, image.where)
                if finder.exists(found):
                    file_name = relative_name(found, root)
                    image = image._replace(path=Path(found), file_name=file_name)
            images.append(image)
    return raw._replace(images=tuple(images))
